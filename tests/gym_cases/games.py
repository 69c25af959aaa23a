"""Puzzles on boards and with numbers."""

import re
from itertools import pairwise

from suites.base import Problem
from tests.gym_cases import Case
from tests.gym_cases.basic import NUMBER

# ---------------------------------------------------------------------------------------------------------------------
# Countdown


def sums_right(problem: Problem) -> list[str]:
    answer = problem.answer
    return [f"({answer})", answer.replace(" ", ""), answer.replace("*", " × "), f"-(-({answer}))"]


def sums_wrong(problem: Problem) -> list[str]:
    answer, number = problem.answer, problem.data["numbers"][0]
    changed = [
        f"{answer} + 0",
        f"({answer}) * 1",
        f"{answer} + {number} - {number}",
        f"{answer} = {answer}",
        f"({answer}",
    ]
    powers = [
        f"({answer})**1",
        f"({answer})//1",
        f"({answer})/0",
        f"0*({answer})",
        "()",
        f"({answer})()",
        "-" * 150 + "1",
    ]
    numbers = " ".join(map(str, problem.data["numbers"]))
    return [*changed, *powers, f"-({answer})", str(problem.data["target"]), numbers, numbers.replace(" ", "+") + "+"]


# ---------------------------------------------------------------------------------------------------------------------
# Grids


def rows_of(problem: Problem) -> list[list[str]]:
    return [line.split() for line in problem.answer.splitlines()]


def written(rows: list[list[str]]) -> str:
    return "\n".join(" ".join(row) for row in rows)


def grid_right(problem: Problem) -> list[str]:
    rows = [f"[{', '.join(row)}]" for row in rows_of(problem)]
    return [
        f"[{', '.join(rows)}]",
        "[" + ",\n".join(rows) + "]",
        "\n".join(rows),
        problem.answer.replace("\n", "\r\n\n"),
    ]


def grid_wrong(problem: Problem) -> list[str]:
    """A row less, a row or a cell more, rows in one line, and any cell that is something else."""
    rows = rows_of(problem)
    answers = [rows[:-1], [*rows, rows[0]], [[*rows[0], "1"], *rows[1:]], [[cell for row in rows for cell in row]]]
    for i, j, cell in ((0, 0, "x"), (1, 2, "_"), (1, 1, "12"), (0, 1, "-1"), (2, 2, "1.5")):
        changed = [list(row) for row in rows]
        changed[i][j] = cell
        answers.append(changed)
    return [written(answer) for answer in answers]


def weights_wrong(problem: Problem) -> list[str]:
    answers = grid_wrong(problem)
    for i, j in ((0, 0), (1, 2), (-1, -1)):
        rows = rows_of(problem)
        rows[i][j] = "10"[int(rows[i][j])]
        answers.append(written(rows))
    return answers


def sudoku_wrong(problem: Problem) -> list[str]:
    rows = rows_of(problem)
    return [*grid_wrong(problem), written(rows[::-1]), written([rows[0][::-1], *rows[1:]])]


def survo_wrong(problem: Problem) -> list[str]:
    """Two different numbers in each other's places, a sum more, and numbers of the right sum that are not given."""
    rows, puzzle = rows_of(problem), problem.data["puzzle"]
    answers = [written([[str(cell) for cell in row] for row in puzzle]), *grid_wrong(problem)]
    empty = [(i, j) for i, row in enumerate(puzzle) for j, cell in enumerate(row) if cell == 0]
    for (i, j), (k, m) in pairwise(empty):
        if rows[i][j] != rows[k][m]:
            swapped = [list(row) for row in rows]
            swapped[i][j], swapped[k][m] = swapped[k][m], swapped[i][j]
            answers.append(written(swapped))
    more = [list(row) for row in rows]
    more[0][0], more[0][-1] = str(int(rows[0][0]) + 1), str(int(rows[0][-1]) + 1)
    more[-1][0], more[-1][-1] = str(int(rows[-1][0]) + 1), str(int(rows[-1][-1]) + 1)
    return [*answers, written(more)]


def futoshiki_right(problem: Problem) -> list[str]:
    rows = problem.data["solution"]
    plain = "\n".join(" ".join(map(str, row)) for row in rows)
    without = re.sub("[<>]", " ", problem.answer)
    return [str(rows), str(rows)[1:-1], plain, without, problem.answer.replace("∧", "^").replace("∨", "v")]


def futoshiki_wrong(problem: Problem) -> list[str]:
    rows = problem.data["solution"]
    plain = "\n".join(" ".join(map(str, row)) for row in rows)
    answers = [plain.replace("1", "2"), plain.replace("1", "_"), plain.replace(" ", "a"), plain.rpartition("\n")[0]]
    for sign, other in ("<>", "><", "∧∨", "∨∧"):
        if sign in problem.answer:
            answers += [problem.answer.replace(sign, other, 1), problem.answer.replace(sign, sign + sign, 1)]
    return [*answers, str([*rows[1:], rows[0]]), plain + "\n" + plain]


# ---------------------------------------------------------------------------------------------------------------------
# Buttons and points


def buttons_right(problem: Problem) -> list[str]:
    names = problem.data["solution_path"]
    return ["->".join(names), ", ".join(names), " ".join(names).lower(), f"[{', '.join(names)}]", "".join(names)]


def buttons_wrong(problem: Problem) -> list[str]:
    names = problem.data["solution_path"]
    changed = [[*names, names[-1]], names[:-1], [*names[:-1], "D"], [*names[:-1], "ABC"], [*names, "D"]]
    return [" → ".join(answer) for answer in changed]


def point_right(problem: Problem) -> list[str]:
    column, row = problem.answer[0], problem.answer[1:]
    return [problem.answer.lower(), f"({column}, {row})", f"{column} {row}", f"{column}-{row}"]


def point_wrong(problem: Problem) -> list[str]:
    column, row = problem.answer[0], int(problem.answer[1:])
    points = [f"{column}{row + 1}", f"{column}{row - 1}", f"{chr(ord(column) + 1)}{row}", f"{row}{column}", column]
    return [*points, f"{column}{row}, {column}{row + 1}", f"({problem.answer}", f"{column}²", f"{column}{row}²"]


# ---------------------------------------------------------------------------------------------------------------------


CASES = {
    "countdown": Case(sums_right, sums_wrong),
    "futoshiki": Case(futoshiki_right, futoshiki_wrong),
    "kakurasu": Case(grid_right, weights_wrong),
    "maze": NUMBER,
    "mini_sudoku": Case(grid_right, sudoku_wrong),
    "quantum_lock": Case(buttons_right, buttons_wrong),
    "survo": Case(grid_right, survo_wrong),
    "tsumego": Case(point_right, point_wrong),
}
