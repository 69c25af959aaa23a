"""Grids, graphs and other things to look at."""

import json
import re
from collections import deque

from suites.base import Problem
from suites.parsers import number_grid
from tests.gym_cases import Case
from tests.gym_cases.basic import NUMBER

Rows = list[list[int]]


def rows_of(problem: Problem) -> Rows:
    return [[int(cell) for cell in row] for row in number_grid(problem.answer)]


def lines(rows: Rows, separator: str = " ") -> str:
    return "\n".join(separator.join(map(str, row)) for row in rows)


# ---------------------------------------------------------------------------------------------------------------------
# Grids and rows of numbers


def grid_right(problem: Problem) -> list[str]:
    rows = rows_of(problem)
    bracketed = [json.dumps(row) for row in rows]
    return [
        lines(rows),
        lines(rows, ", "),
        lines(rows, " ").replace("\n", " \r\n  ") + " \n\n",
        "\n".join(f"{row}," for row in lines(rows, ",").split("\n")),
        json.dumps(rows),
        json.dumps(rows, separators=(",", ":")),
        json.dumps(rows, indent=4),
        str([[str(cell) for cell in row] for row in rows]),
        str(tuple(tuple(row) for row in rows)),
        "[" + ",\n ".join(bracketed) + "]",
        lines(rows, " ") if len(rows) == 1 else "\n".join(bracketed),  # one list alone is a row or a column
        "[[" + lines(rows).replace("\n", "]\n [") + "]]",
        str([[float(cell) for cell in row] for row in rows]),
    ]


def changed_grids(rows: Rows) -> list[Rows]:
    last = [row[:] for row in rows]
    last[-1][-1] += 1
    first = [row[:] for row in rows]
    first[0][0] += 1
    transposed = [list(column) for column in zip(*rows, strict=True)]
    changed = [last, first, rows[:-1], rows[1:], [*rows, rows[-1]], [row[:-1] for row in rows]]
    changed += [[[*row, 0] for row in rows], [*rows[:-1], [*rows[-1], 0]], rows[::-1], transposed]
    changed += [[row[::-1] for row in rows], [[cell for row in rows for cell in row]]]
    return [grid for grid in changed if grid != rows]


def grid_wrong(problem: Problem) -> list[str]:
    rows = rows_of(problem)
    changed = changed_grids(rows)
    text = lines(rows)
    answers = [lines(grid) for grid in changed] + [json.dumps(grid) for grid in changed]
    answers += [f"{text}\n\n{text}", f"[{json.dumps(rows)}]", json.dumps(rows)[:-2], json.dumps(rows) + "]"]
    return [*answers, f"Output:\n{text}", text.replace(text[-1], "x"), f"[{text}", f"{text}\n{lines(changed[0])}"]


def row_right(problem: Problem) -> list[str]:
    cells = [int(cell) for cell in problem.answer.split()]
    commas = ", ".join(map(str, cells))
    return [
        commas,
        commas.replace(" ", ""),
        f"[{commas}]",
        f"({commas})",
        f"[[{commas}]]",
        f"[{problem.answer}]",
        problem.answer.replace(" ", "  "),
        problem.answer.replace(" ", "\n"),
        json.dumps(cells, indent=2),
        str([str(cell) for cell in cells]),
        str([float(cell) for cell in cells]),
    ]


def row_wrong(problem: Problem) -> list[str]:
    cells = [int(cell) for cell in problem.answer.split()]
    changed = [cells[:-1], cells[1:], [*cells, 0], [0, *cells], cells[::-1], cells + cells]
    changed += [[*cells[:i], cells[i] + 1, *cells[i + 1 :]] for i in range(len(cells))]
    answers = [" ".join(map(str, row)) for row in changed if row != cells]
    answers += [json.dumps(row) for row in changed if row != cells]
    return [*answers, problem.answer.replace(" ", ""), f"[{problem.answer}", f"[{problem.answer}] [{problem.answer}]"]


# ---------------------------------------------------------------------------------------------------------------------
# Words


def word_right(problem: Problem) -> list[str]:
    return [problem.answer.upper(), problem.answer.capitalize(), f'"{problem.answer}"', f"{problem.answer}."]


def wrong_among(others: list[str], problem: Problem) -> list[str]:
    """All other words are wrong, and so are two words."""
    answer = problem.answer
    others = [word for word in others if word != answer]
    contained = [f"{answer} or {word}" for word in others] + [f"{word} {answer}" for word in others]
    return [*others, *contained, answer + "s", answer[:-1], f"not {answer}", f"{answer} {answer}", f"[{answer}, ]"]


def truth_wrong(problem: Problem) -> list[str]:
    return wrong_among(["True", "False", "Yes", "No", "1", "0"], problem)


def relation_wrong(problem: Problem) -> list[str]:
    parents, others = ["mother", "father", "parent"], ["sister", "brother", "daughter", "son", "wife", "husband"]
    return wrong_among([*parents, *others, *(f"grand{word}" for word in parents)], problem)


def color_wrong(problem: Problem) -> list[str]:
    return wrong_among(re.findall(r"- an? (\w+) \w+ side", problem.question), problem)


# ---------------------------------------------------------------------------------------------------------------------
# Colorings


def renamed(coloring: dict[str, int], colors: list[int]) -> dict[str, int]:
    turned = dict(zip(colors, [*colors[1:], colors[0]], strict=True))
    return {vertex: turned[color] for vertex, color in coloring.items()}


def colouring_right(problem: Problem) -> list[str]:
    coloring = json.loads(problem.answer)
    other = renamed(coloring, problem.data["colors"])
    return [
        json.dumps(coloring, indent=4),
        json.dumps(coloring, separators=(",", ":")),
        json.dumps(dict(reversed(coloring.items()))),
        json.dumps({vertex: str(color) for vertex, color in coloring.items()}),
        str({int(vertex): color for vertex, color in coloring.items()}),
        str(coloring),
        "\n".join(f"{vertex}: {color}" for vertex, color in coloring.items()),
        json.dumps(other),
        json.dumps(renamed(other, problem.data["colors"])),
    ]


def colouring_wrong(problem: Problem) -> list[str]:
    coloring = json.loads(problem.answer)
    first, last = problem.data["vertices"][0], problem.data["vertices"][-1]
    wrong = [{**coloring, str(one): coloring[str(other)]} for one, other in problem.data["edges"]]
    wrong += [{vertex: color for vertex, color in coloring.items() if vertex != str(last)}, {}]
    wrong += [{**coloring, str(last): color} for color in (0, 4, -1, 1.5, None, [1], "red")]
    wrong += [{**coloring, str(last + 1): 1}, {**coloring, "x": 1}]
    answers = [json.dumps(answer) for answer in wrong]
    twice = problem.answer[:-1] + f', "{first}": {coloring[str(first)]}}}'
    only_colors = json.dumps(list(coloring.values()))
    return [*answers, twice, only_colors, f"{problem.answer}\n{problem.answer}", f"[{problem.answer}]"]


# ---------------------------------------------------------------------------------------------------------------------
# Paths

STEPS = {"right": (0, 1), "down": (1, 0), "left": (0, -1), "up": (-1, 0)}


def paths(problem: Problem, spare: int) -> list[str]:
    """Up to 20 ways from * to # of the shortest length and `spare` more steps, found from the grid alone."""
    cells = {(r, c): cell for r, row in enumerate(problem.data["matrix"]) for c, cell in enumerate(row) if cell != "X"}
    start, end = (next(place for place, cell in cells.items() if cell == mark) for mark in "*#")
    distance = {end: 0}
    queue = deque([end])
    while queue:
        r, c = queue.popleft()
        for dr, dc in STEPS.values():
            if (r + dr, c + dc) in cells and (r + dr, c + dc) not in distance:
                distance[r + dr, c + dc] = distance[r, c] + 1
                queue.append((r + dr, c + dc))
    if start not in distance:
        return []
    found: list[str] = []
    open_ends = [(start, distance[start] + spare, "")]
    while open_ends and len(found) < 20:
        (r, c), left, path = open_ends.pop()
        if left == 0:
            found.append(path.strip())
        for word, (dr, dc) in STEPS.items():
            place = (r + dr, c + dc)
            if distance.get(place, left) < left:
                open_ends.append((place, left - 1, f"{path} {word}"))
    return found


def path_right(problem: Problem) -> list[str]:
    answer = problem.answer
    if answer == "infeasible":
        return ['"infeasible"', "Infeasible", "infeasible.", "INFEASIBLE"]
    words = answer.split()
    layouts = [answer.upper(), ", ".join(words), "\n".join(words), " -> ".join(words), "→".join(words), str(words)]
    return [*layouts, json.dumps(words), *paths(problem, 0)]


def path_wrong(problem: Problem) -> list[str]:
    if problem.answer == "infeasible":
        return ["feasible", "right", "down down left", "infeasible infeasible", "-1", "[]", "right infeasible"]
    words = problem.answer.split()
    back = {"right": "left", "left": "right", "up": "down", "down": "up"}
    opposite = " ".join(back[word] for word in words)
    answers = ["infeasible", " ".join(words[:-1]), " ".join(words[1:]), opposite, f"{problem.answer} {words[-1]}"]
    answers += [f"{words[0]} {back[words[0]]} {problem.answer}", f"{problem.answer} {back[words[-1]]} {words[-1]}"]
    answers += [problem.answer.replace(words[0], "forward"), "".join(word[0] for word in words), str(len(words))]
    return [*answers, *paths(problem, 2)]


# ---------------------------------------------------------------------------------------------------------------------


GRID = Case(grid_right, grid_wrong)
ROW = Case(row_right, row_wrong)
CASES = {
    **dict.fromkeys(("binary_matrix", "game_of_life", "manipulate_matrix", "rearc"), GRID),
    **dict.fromkeys(("arc_1d", "spiral_matrix"), ROW),
    **dict.fromkeys(("course_schedule", "game_of_life_halting"), Case(word_right, truth_wrong)),
    **dict.fromkeys(("largest_island", "rotten_oranges"), NUMBER),
    "color_cube_rotation": Case(word_right, color_wrong),
    "family_relationships": Case(word_right, relation_wrong),
    "graph_color": Case(colouring_right, colouring_wrong),
    "shortest_path": Case(path_right, path_wrong),
}
