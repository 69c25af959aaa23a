"""Boards and matrices."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import cycle, product
from math import floor
from random import Random

from suites.base import Problem
from tests.symbench_cases import Case

Grid = list[list[str]]


def read(answer: str) -> Grid:
    """The cells of a reference answer."""
    return [line.split() for line in answer.splitlines()]


def write(grid: Iterable[Iterable[object]], between: str = " ") -> str:
    """A grid as the questions ask for it."""
    return "\n".join(between.join(map(str, row)) for row in grid)


def layouts(grid: Sequence[Sequence[object]]) -> list[str]:
    """A grid in forms that all say the same."""
    rows = [[str(cell) for cell in row] for row in grid]
    flat = [cell for row in rows for cell in row]
    bare = "[" + ",\n ".join(f"[{' '.join(row)}]" for row in rows) + "]"  # as numpy writes it
    return [
        write(rows),
        write(rows, ", "),
        write(rows, ",").replace("\n", ",\n"),
        write(rows, "   ").replace("\n", "  \n\n  "),
        f"**{write(rows)}**",
        f"`{' '.join(flat)}`",
        f"{write(rows)}.",
        " ".join(flat),
        ",".join(flat),
        f"[{', '.join(flat)}].",
        f"({', '.join(flat)})",
        str(tuple(flat)),
        json.dumps(flat),
        str(rows),
        json.dumps(rows),
        json.dumps(rows, indent=2),
        str(tuple(map(tuple, rows))),
        bare,
        "\n".join(f"[{', '.join(row)}]" for row in rows),
    ]


def packed(grid: Sequence[Sequence[str]]) -> list[str]:
    """Cells of one character, with nothing between them."""
    return [write(grid, ""), write(grid, "").replace("\n", ""), json.dumps(["".join(row) for row in grid])]


def others(right: Grid, grids: Iterable[Iterable[Iterable[object]]]) -> list[str]:
    """Those of the grids that are not the right one, whether in rows or in one line."""
    found = [[[str(cell) for cell in row] for row in grid] for grid in grids]
    flat = [cell for row in right for cell in row]
    different = [grid for grid in found if grid not in (right, [flat])]
    lines = [grid for grid in found if [cell for row in grid for cell in row] != flat]
    return [write(grid) for grid in different] + [write(grid).replace("\n", " ") for grid in lines]


def damaged(right: Grid, random: Random, values: Sequence[str]) -> list[str]:
    """The grid with a change as small as possible."""
    height, width = len(right), len(right[0])
    row, column = random.randrange(height), random.randrange(width)
    changed, swapped, shorter, longer = ([[*cells] for cells in right] for _ in range(4))
    changed[row][column] = random.choice([value for value in values if value != right[row][column]])
    other_row, other_column = random.randrange(height), random.randrange(width)
    swapped[row][column], swapped[other_row][other_column] = right[other_row][other_column], right[row][column]
    del shorter[row][column]
    longer[row].insert(column, right[row][column])
    return [
        *others(
            right,
            [
                changed,
                swapped,
                shorter,
                longer,
                right[1:],
                right[:-1],
                [*right, right[-1]],
                [*right, *right],
                [*right[1:], right[0]],
                right[::-1],
                [cells[::-1] for cells in right],
                zip(*right, strict=True),
            ],
        ),
        f"{write(right)}\n{write(changed)}",
        f"The grid is {write(right)}",
        f"[{write(right)}",
        f"{write(right)}]]",
        f"{write(right)} or so",
        f"<<<{write(right)}>>>",
    ]


# ---------------------------------------------------------------------------------------------------------------------
# 2048


def moved(data: dict, slides: bool = False, once: bool = False, leaves: bool = False, steps: str = "uldr") -> Grid:
    """The grid in the end. Each option plays by a rule that is not the question's: a number that slides as far as it
    can, that stays where it has merged, or that leaves itself behind."""
    cells = {complex(c, r): number for r, row in enumerate(data["grid"]) for c, number in enumerate(row)}
    at = complex(data["start"][1] - 1, data["start"][0] - 1)
    merged = False
    for letter in data["moves"]:
        for _ in range(10 if slides else 1):
            to = at - 1j * (-1j) ** steps.index(letter)
            if at in cells and cells.get(to) in (0, cells[at]) and not (once and merged):
                merged = cells[to] != 0 or merged
                cells[to] += cells[at]
                cells[at] = cells[at] if leaves else 0
                at = to
    size = range(len(data["grid"]))
    return [[str(cells[complex(column, row)]) for column in size] for row in size]


def powers_right(problem: Problem, random: Random) -> list[str]:
    return layouts(moved(dict(problem.data)))


def powers_wrong(problem: Problem, random: Random) -> list[str]:
    data, right = dict(problem.data), moved(dict(problem.data))
    row, column = data["start"]
    number = str(data["grid"][row - 1][column - 1])
    variants = [
        moved(data, slides=True),
        moved(data, once=True),
        moved(data, leaves=True),
        moved(data, steps="drul"),
        moved(data, steps="lurd"),
        moved(data | {"moves": data["moves"][:-1]}),
        moved(data | {"moves": data["moves"][1:]}),
        moved(data | {"moves": data["moves"][::-1]}),
        moved(data | {"start": [column, row]}),
        moved(data | {"start": [row + 1, column + 1]}),
        data["grid"],
        [[f"0{cell}" for cell in cells] for cells in right],
        [["_" if cell == "0" else cell for cell in cells] for cells in right],
    ]
    return [*others(right, variants), *damaged(right, random, ["0", "2", "64", number]), number, *packed(right)[:1]]


# ---------------------------------------------------------------------------------------------------------------------
# light_puzzles


def switched(data: dict, shift: int = 1, order: int = 1) -> Grid:
    """What is on in the end: where the light and all that switched it make an odd number."""
    switches = Counter(tuple(place[::order]) for button in data["presses"] for place in data["buttons"][button])
    return [
        [str((int(light) + switches[row + shift, column + shift]) % 2) for column, light in enumerate(lights)]
        for row, lights in enumerate(data["lights"])
    ]


def lights_right(problem: Problem, random: Random) -> list[str]:
    right = switched(dict(problem.data))
    return [*layouts(right), *packed(right)]


def lights_wrong(problem: Problem, random: Random) -> list[str]:
    data, right = dict(problem.data), switched(dict(problem.data))
    variants = [
        switched(data, shift=0),
        switched(data, shift=2),
        switched(data, order=-1),
        switched(data | {"presses": data["presses"][:-1]}),
        switched(data | {"presses": [*data["presses"], random.choice(data["presses"])]}),
        switched(data | {"presses": list(dict.fromkeys(data["presses"]))}),
        switched(data | {"presses": list(data["buttons"])}),
        [list(row) for row in data["lights"]],
        [["10"[int(light)] for light in row] for row in right],
    ]
    words = write(right).replace("1", "on").replace("0", "off")
    missing = write(right, "")[:-1]
    return [*others(right, variants), *damaged(right, random, "01"), words, missing, missing + "2", *packed(right[1:])]


# ---------------------------------------------------------------------------------------------------------------------
# matrix_transformation


def turned(matrix: Sequence[Sequence[str]]) -> Grid:
    """Clockwise: what is in the last column was in the first row."""
    return [[matrix[len(matrix) - 1 - c][r] for c in range(len(matrix))] for r in range(len(matrix[0]))]


def matrix_right(problem: Problem, random: Random) -> list[str]:
    right = turned(problem.data["matrix"])
    return [*layouts(right), *packed(right)]


def matrix_wrong(problem: Problem, random: Random) -> list[str]:
    matrix, right = [list(row) for row in problem.data["matrix"]], turned(problem.data["matrix"])
    variants = [
        matrix,
        matrix[::-1],
        [row[::-1] for row in matrix],
        turned(turned(matrix)),
        turned(turned(turned(matrix))),
        zip(*matrix, strict=True),
        [[cell.lower() for cell in row] for row in right],
        [[cell.replace("O", "0") for cell in row] for row in right],
    ]
    flat = "".join(map("".join, right))
    width = len(matrix[0])
    reshaped = [[flat[i : i + width] for i in range(0, len(flat), width)]] if width != len(matrix) else []
    return [*others(right, [*variants, *reshaped]), *damaged(right, random, "AZ7!?"), *packed(right[1:])]


# ---------------------------------------------------------------------------------------------------------------------
# pattern_recognition


def largest(letters: list[str]) -> tuple[int, int, int]:
    """First row, first column and side of the largest square of one letter."""
    for side in range(min(len(letters), len(letters[0])), 0, -1):
        for top, left in product(range(len(letters) - side + 1), range(len(letters[0]) - side + 1)):
            if len({letter for row in letters[top : top + side] for letter in row[left : left + side]}) == 1:
                return top, left, side
    raise AssertionError("an empty grid")


def pattern_right(problem: Problem, random: Random) -> list[str]:
    top, left, side = largest(problem.data["letters"])
    row, column = top + side - 1, left + side - 1
    return [
        f"[{row}, {column}]",
        f"({row}, {column})",
        f"[{row},{column}].",
        f"{row}, {column}",
        f"{row} {column}",
        f"**[{row}, {column}]**",
        f"`[{row}, {column}]`",
        f'["{row}", "{column}"]',
        f"[[{row}, {column}]]",
        f"[ {row} ,\n {column} ]",
    ]


def pattern_wrong(problem: Problem, random: Random) -> list[str]:
    top, left, side = largest(problem.data["letters"])
    row, column = top + side - 1, left + side - 1
    places = [
        (top, left),
        (top, column),
        (row, left),
        (row + 1, column + 1),
        (row - 1, column - 1),
        (row, column + random.choice((-1, 1))),
        (row + random.choice((-1, 1)), column),
        (top + 2, left + 2),
        (column, row),
        (row, -column),
        (row, column + 100),
        (row,),
        (row, column, side),
        (row, column, row, column),
        (problem.data["letters"][row][column], row, column),
    ]
    pair = f"[{row}, {column}]"
    more = [
        f"{pair}, {pair}",
        f"{pair} or so",
        f"row {pair}",
        f"{row}.{column}",
        f"{row}{column}",
        f"[{pair}",
        f"{pair}]",
    ]
    return [*(str(list(place)) for place in places if place != (row, column)), *more]


# ---------------------------------------------------------------------------------------------------------------------
# pooling


def windows(data: dict, stride: int = 1) -> list[list[list[int]]]:
    """The numbers of each window."""
    size = range(data["window"])
    starts = range(0, len(data["matrix"]) - data["window"] + 1, stride)
    return [[[data["matrix"][r + i][c + j] for i in size for j in size] for c in starts] for r in starts]


def averages(data: dict) -> list[list[Fraction]]:
    return [[Fraction(sum(numbers), len(numbers)) for numbers in row] for row in windows(data)]


def maxima(data: dict) -> list[list[int]]:
    return [[max(numbers) for numbers in row] for row in windows(data)]


def decimals(grid: list[list[Fraction]], digits: int) -> Grid:
    return [[f"{float(number):.{digits}f}" for number in row] for row in grid]


def pooling_right(problem: Problem, random: Random) -> list[str]:
    data = dict(problem.data)
    if data["pooling"] == "max":
        grids = [maxima(data), [[f"{number}.0" for number in row] for row in maxima(data)]]
    else:
        exact = averages(data)
        grids = [
            exact,
            *(decimals(exact, digits) for digits in (2, 3, 6, 15)),
            [[float(number) for number in row] for row in exact],
            [[f"{number:+.2f}" for number in map(float, row)] for row in exact],
            # The tolerance is what the question says, to the last digit.
            [[number + Fraction(random.choice((-1, 1)), 200) for number in row] for row in exact],
            [[rf"\frac{{{number.numerator}}}{{{number.denominator}}}" for number in row] for row in exact],
        ]
    return [*layouts(grids[0]), *layouts(random.choice(grids[:-1])), *map(write, grids)]


def pooling_wrong(problem: Problem, random: Random) -> list[str]:
    data, exact, most = dict(problem.data), averages(dict(problem.data)), maxima(dict(problem.data))
    least = [[min(numbers) for numbers in row] for row in windows(data)]
    apart = [[max(numbers) for numbers in row] for row in windows(data, data["window"])]
    narrow = data | {"window": data["window"] - 1}
    if data["pooling"] == "max":
        right = [[str(number) for number in row] for row in most]
        near = [[[number + Fraction(1, 1000) for number in row] for row in most]]
        variants = [exact, decimals(exact, 2), apart, maxima(narrow), *(decimals(grid, 3) for grid in near)]
    else:
        right = decimals(exact, 2)
        changed, farther = ([[*row] for row in exact] for _ in range(2))
        row, column = random.randrange(len(exact)), random.randrange(len(exact))
        changed[row][column] += random.choice((-1, 1)) * Fraction(1, len(windows(data)[0][0]))
        farther[row][column] += random.choice((-1, 1)) * Fraction(51, 10_000)
        off = max(abs(number - round(number)) for cells in exact for number in cells) > Fraction(1, 100)
        whole = [[[f(number) for number in cells] for cells in exact] for f in (round, floor, int)] if off else []
        divided = [[sum(numbers) for numbers in cells] for cells in windows(data)]
        variants = [most, averages(narrow), decimals(changed, 2), changed, farther, divided, *whole]
    missing = [["x", *right[0][1:]], *right[1:]]
    unknown = [["1/0", *right[0][1:]], *right[1:]]
    return [*others(right, [least, missing, unknown, *variants]), *damaged(right, random, ["77", "-77"])]


# ---------------------------------------------------------------------------------------------------------------------
# reversi

RAYS = [(down, right) for down, right in product((-1, 0, 1), repeat=2) if (down, right) != (0, 0)]


def played(
    data: dict,
    first: int = 0,
    rays: Sequence[tuple[int, int]] = RAYS,
    shift: int = 1,
    order: int = 1,
    gap: str = "",
    again: bool = False,
) -> Grid:
    """The board in the end, a direction read as a text. Each option plays by a rule that is not the question's: the
    other colour begins, some directions do not count, other coordinates, flips over a gap, flips that flip."""
    cells = {(r, c): cell for r, row in enumerate(data["board"]) for c, cell in enumerate(row)}
    for i, move in enumerate(data["moves"], first):
        mine, other = "BWB"[i % 2 : i % 2 + 2]
        todo = [tuple(number - shift for number in move[::order])]
        cells[todo[0]] = mine
        while todo:
            row, column = todo.pop()
            before = dict(cells)
            for down, right in rays:
                places = [(row + down * i, column + right * i) for i in range(1, 10)]
                text = "".join(before.get(place, " ") for place in places)
                run = re.match(f"[{other}{gap}]+(?={mine})", text)
                for place in places[: len(run.group()) if run else 0]:
                    cells[place] = mine
                    todo += [place] if again else []
    size = range(len(data["board"]))
    return [[cells[row, column] for column in size] for row in size]


def reversi_right(problem: Problem, random: Random) -> list[str]:
    right = played(dict(problem.data))
    return [*layouts(right), *packed(right), write(right).lower(), str(right).lower()]


def reversi_wrong(problem: Problem, random: Random) -> list[str]:
    data, right = dict(problem.data), played(dict(problem.data))
    placed = [list(row) for row in data["board"]]
    for mover, (row, column) in zip(cycle("BW"), data["moves"], strict=False):
        placed[row - 1][column - 1] = mover
    variants = [
        data["board"],
        placed,
        played(data, first=1),
        played(data, rays=[(0, 1), (1, 0), (0, -1), (-1, 0)]),
        played(data, rays=[(1, 1), (1, -1), (-1, 1), (-1, -1)]),
        *(played(data, rays=RAYS[:i] + RAYS[i + 1 :]) for i in range(len(RAYS))),
        played(data, shift=0),
        played(data, shift=2),
        played(data, order=-1),
        played(data, gap="E"),
        played(data, again=True),
        played(data | {"moves": data["moves"][:-1]}),
        played(data | {"moves": data["moves"][1:]}),
        [[{"B": "W", "W": "B"}.get(cell, cell) for cell in row] for row in right],
        [["." if cell == "E" else cell for cell in row] for row in right],
        [[str("BWE".index(cell)) for cell in row] for row in right],
    ]
    return [*others(right, variants), *damaged(right, random, "BWE"), *packed(right[1:]), write(right, "")[:-1]]


CASES = {
    "2048": Case(powers_right, powers_wrong),
    "light_puzzles": Case(lights_right, lights_wrong),
    "matrix_transformation": Case(matrix_right, matrix_wrong),
    "pattern_recognition": Case(pattern_right, pattern_wrong),
    "pooling": Case(pooling_right, pooling_wrong),
    "reversi": Case(reversi_right, reversi_wrong),
}
