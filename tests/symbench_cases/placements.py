"""Grids to be filled by rules."""

import json
from collections.abc import Callable, Iterable
from functools import cache
from itertools import combinations, permutations, product
from math import prod
from random import Random

from suites.base import Problem
from tests.symbench_cases import Case

Cell = tuple[int, int]


def source(random: Random) -> Random:
    """A source for many chances, which are too many to be drawn from Hypothesis one by one."""
    return Random(random.getrandbits(64))


# ---------------------------------------------------------------------------------------------------------------------
# Positions


def cells_of(text: str) -> list[Cell]:
    return [(int(row), int(column)) for row, column in (pair.split() for pair in text.split(", "))]


def text_of(cells: Iterable[Cell]) -> str:
    return ", ".join(f"{row} {column}" for row, column in cells)


def position_layouts(cells: list[Cell], random: Random) -> list[str]:
    text, pairs = text_of(cells), [list(cell) for cell in cells]
    return [
        text,
        text_of(random.sample(cells, len(cells))),
        f" {text}.",
        f"**{text}**",
        f"[{text}]",
        text.replace(", ", "\n"),
        text.replace(", ", ",\n\n"),
        text.replace(", ", "; "),
        "; ".join(f"{row}, {column}" for row, column in cells),
        ", ".join(f"({row}, {column})" for row, column in cells),
        " ".join(f"({row},{column})" for row, column in cells),
        "; ".join(f"[{row} {column}]" for row, column in cells),
        ", ".join(f"'{row} {column}'" for row, column in cells),
        str(cells),
        str(pairs),
        json.dumps(pairs, indent=2),
        str([f"{row} {column}" for row, column in cells]),
    ]


def position_mistakes(cells: list[Cell], size: int, random: Random) -> list[list[Cell]]:
    """Lists of positions that are wrong in whatever way these are right."""
    place, other = random.sample(range(len(cells)), 2)
    without = cells[:place] + cells[place + 1 :]
    return [
        without,
        cells[:1],
        [*cells, cells[place]],
        [*without, cells[other]],
        [*without, (size, cells[place][1])],
        [*without, (cells[place][0], size)],
        [*without, (cells[place][0] - size, cells[place][1])],
        [*without, (cells[place][0], cells[place][1] - size)],
    ]


def position_garbage(cells: list[Cell]) -> list[str]:
    text = text_of(cells)
    return [
        f"{text}, {cells[0][0]}",
        f"{text[:-1]}",
        f"{text}?",
        f"({text}",
        f"[{text}], [{text}]",
        f"{text} or {text}",
        text.replace(" ", "-"),
        text.replace(", ", "; 0; "),
        text.replace("1", "١").replace("2", "²").replace("0", "O").replace("3", "three").replace("4", "4.5"),
    ]


def queens_attack(cells: list[Cell]) -> bool:
    lines = [
        {row for row, _ in cells},
        {column for _, column in cells},
        {row + column for row, column in cells},
        {row - column for row, column in cells},
    ]
    return min(map(len, lines)) < len(cells)


@cache
def all_placements() -> list[list[Cell]]:
    """The 92 ways to place eight queens."""
    return [cells for order in permutations(range(8)) if not queens_attack(cells := list(enumerate(order)))]


def squares(problem: Problem, symbol: str) -> set[Cell]:
    board = problem.data["board"]
    return {(row, column) for row in range(8) for column in range(8) if board[row][column] == symbol}


def queens_right(problem: Problem, random: Random) -> list[str]:
    queens, blocked = squares(problem, "Q"), squares(problem, "X")
    placements = [cells for cells in all_placements() if queens <= set(cells) and not blocked & set(cells)]
    assert cells_of(problem.answer) in placements
    return [text_of(cells) for cells in placements] + position_layouts(random.choice(placements), random)


def queens_wrong(problem: Problem, random: Random) -> list[str]:
    cells = cells_of(problem.answer)
    queens, blocked = squares(problem, "Q"), squares(problem, "X")
    placements = random.sample(all_placements(), 20)
    changed = [
        *position_mistakes(cells, 8, random),
        *(placement for placement in placements if not queens <= set(placement)),
        *(placement for placement in placements if blocked & set(placement)),
        [cell for cell in cells if cell not in queens] * bool(queens),
        [*cells, (0, (cells[0][1] + 1) % 8)],
    ]
    row = random.randrange(8)
    for moved in ((row, (cells[row][1] + random.randint(1, 7)) % 8), ((row + random.randint(1, 7)) % 8, cells[row][1])):
        changed.append([*cells[:row], moved, *cells[row + 1 :]])  # its new column, or row, holds another queen
    swapped = [column for _, column in cells]
    one, other = random.sample(range(8), 2)
    swapped[one], swapped[other] = swapped[other], swapped[one]
    for same in (
        list(enumerate(swapped)),
        [(column, row) for row, column in cells],
        [(row, 7 - column) for row, column in cells],
        [(row + 1, column + 1) for row, column in cells],
        [(row, (column + 1) % 8) for row, column in cells],
    ):
        if queens_attack(same) or max(map(max, same)) > 7 or not queens <= set(same) or blocked & set(same):
            changed.append(same)
    columns = " ".join(str(column) for _, column in cells)
    return [*map(text_of, changed), *position_garbage(cells), columns, "\n".join(problem.data["board"])]


def choice_obeys(problem: Problem, cells: Iterable[Cell]) -> bool:
    """Whether a choice of cells obeys the rules, said in another way."""
    data, chosen = problem.data, set(cells)
    size = len(data["grid"])
    if not all(0 <= row < size and 0 <= column < size for row, column in chosen):
        return False
    numbers = {(row, column): data["grid"][row][column] for row, column in chosen}
    lines = [[numbers[cell] for cell in chosen if cell[axis] == line] for axis in (0, 1) for line in range(size)]
    good = all(sum(line) < 5 for line in lines) if data["rule"] == "sum" else min(map(prod, lines)) > 0
    return good and tuple(data["first"]) in chosen and len(set(numbers.values())) == len(chosen) == data["count"]


def other_choices(problem: Problem, random: Random) -> list[list[Cell]]:
    """Further right choices: all of them on the small grids. On the larger ones, positive numbers can stand anywhere,
    and so can two pairs of negative ones in the corners of a rectangle."""
    data, random = problem.data, source(random)
    grid, first, cells = data["grid"], tuple(data["first"]), cells_of(problem.answer)
    size = range(len(grid))
    every = [(row, column) for row in size for column in size]
    if data["rule"] == "sum":
        return [list(some) for some in combinations(every, data["count"]) if choice_obeys(problem, some)]
    rectangles = [
        list(product(rows, columns))
        for rows in combinations(size, 2)
        for columns in combinations(size, 2)
        if all(grid[row][column] < 0 for row, column in product(rows, columns))
    ]
    found = [cells]
    for corners in [[], *random.sample(rectangles, min(5, len(rectangles)))]:
        negative = {(row, column) for row, column in cells if grid[row][column] < 0}.symmetric_difference(corners)
        chosen = sorted(negative | {first})
        for row, column in random.sample(every, len(every)):
            new = grid[row][column] not in [grid[r][c] for r, c in chosen]
            if grid[row][column] > 0 and new and len(chosen) < data["count"]:
                chosen.append((row, column))
        if choice_obeys(problem, chosen):
            found.append(chosen)
    return found


def logic_right(problem: Problem, random: Random) -> list[str]:
    choices = other_choices(problem, random)
    assert cells_of(problem.answer) in map(sorted, choices)
    return [text_of(cells) for cells in choices] + position_layouts(random.choice(choices), random)


def logic_wrong(problem: Problem, random: Random) -> list[str]:
    data, random = problem.data, source(random)
    cells = random.choice(other_choices(problem, random))
    grid, size = data["grid"], len(data["grid"])
    every = [(row, column) for row in range(size) for column in range(size)]
    changed = [
        *position_mistakes(cells, size, random),
        [(row + 1, column + 1) for row, column in cells],
        [(column, row) for row, column in cells],
        [(row, size - 1 - column) for row, column in cells],
        random.sample(every, data["count"]),
    ]
    for place, _ in enumerate(cells):  # another cell instead, and another one besides
        cell = random.choice(every)
        changed += [[*cells[:place], cell, *cells[place + 1 :]], [*cells, cell]]
    if data["rule"] == "sum":
        changed += map(list, combinations(every, data["count"]))
    else:  # two more negative numbers of a row break the rule in their columns only, and the other way round
        positive = [cell for cell in cells if grid[cell[0]][cell[1]] > 0 and list(cell) != data["first"]]
        kept = [cell for cell in cells if cell not in positive[:2]]
        taken = {grid[row][column] for row, column in kept}
        free = [(row, column) for row, column in every if grid[row][column] < 0 and grid[row][column] not in taken]
        for axis in (0, 1):
            pairs = [[*kept, one, two] for one, two in combinations(free, 2) if one[axis] == two[axis]]
            changed += random.sample(pairs, min(5, len(pairs)))
    values = ", ".join(str(grid[row][column]) for row, column in cells)
    wrong = [text_of(some) for some in changed if len(some) != data["count"] or not choice_obeys(problem, some)]
    return [*wrong, *position_garbage(cells), values]


# ---------------------------------------------------------------------------------------------------------------------
# Squares of symbols

DIGITS, LETTERS = "123456789", "abcdefg"
Clash = Callable[[Cell, Cell], bool]


def same_row(one: Cell, other: Cell) -> bool:
    return one[0] == other[0]


def same_column(one: Cell, other: Cell) -> bool:
    return one[1] == other[1]


def same_box(one: Cell, other: Cell) -> bool:
    return (one[0] // 3, one[1] // 3) == (other[0] // 3, other[1] // 3)


@cache
def clashing(size: int, *rules: Clash) -> dict[Cell, list[Cell]]:
    """For each cell of a square grid, the others that cannot hold the same symbol."""
    every = [(row, column) for row in range(size) for column in range(size)]
    return {one: [two for two in every if one != two and any(rule(one, two) for rule in rules)] for one in every}


def completion(rows: list[str], symbols: str, rules: tuple[Clash, ...], random: Random) -> list[str] | None:
    """A way to complete the rows so that no two cells that clash are equal, found in a random order; what is given
    may clash. None if there is no way, or if it was not found soon."""
    near, grid = clashing(len(rows), *rules), {(r, c): rows[r][c] for r in range(len(rows)) for c in range(len(rows))}
    random, tries = source(random), 1000

    def fill(left: dict[Cell, set[str]]) -> bool:
        nonlocal tries
        tries -= 1
        if not left:
            return True
        cell = min(left, key=lambda cell: (len(left[cell]), random.random()))
        for symbol in random.sample(sorted(left[cell]), len(left[cell])):
            rest = {other: options for other, options in left.items() if other != cell}
            rest |= {other: rest[other] - {symbol} for other in near[cell] if other in rest}
            grid[cell] = symbol
            if tries > 0 and all(rest.values()) and fill(rest):
                return True
        return False

    empty = [cell for cell, symbol in grid.items() if symbol == "."]
    found = fill({cell: set(symbols).difference(grid[other] for other in near[cell]) for cell in empty})
    return ["".join(grid[r, c] for c in range(len(rows))) for r in range(len(rows))] if found else None


def keeps(rows: list[str], full: list[str]) -> bool:
    """Whether the cells that are given are still the same."""
    return all(a in (".", b) for old, new in zip(rows, full, strict=True) for a, b in zip(old, new, strict=True))


def has_clash(rows: list[str], rules: tuple[Clash, ...]) -> bool:
    return any(rows[r][c] == rows[i][j] for (r, c), others in clashing(len(rows), *rules).items() for i, j in others)


def turned(rows: Iterable[Iterable[str]]) -> list[str]:
    """The columns as rows."""
    return ["".join(column) for column in zip(*rows, strict=True)]


def diagonal_of(rows: list[str]) -> str:
    return "".join(row[-1 - i] for i, row in enumerate(rows))


def spaced(rows: Iterable[str]) -> str:
    return "\n".join(" ".join(row) for row in rows)


def square_layouts(rows: list[str]) -> list[str]:
    lists = [list(row) for row in rows]
    return [
        spaced(rows),
        "\n".join(rows),
        "".join(rows),
        " ".join(rows),
        f"\n{spaced(rows)}\n",
        f"**{spaced(rows)}**.",
        spaced(rows).replace("\n", "\n\n"),
        spaced(rows).replace("\n", " "),
        spaced(rows).replace(" ", ","),
        spaced(rows).replace(" ", ", ").replace("\n", ";"),
        spaced(rows).replace(" ", "\t").replace("\n", "\r\n"),
        "\n".join(f"[{', '.join(row)}]" for row in rows),
        "\n".join(f"| {' | '.join(row)} |" for row in rows),
        f"({', '.join(str(tuple(row)) for row in rows)})",
        str(lists),
        str(rows),
        json.dumps(lists, indent=2),
    ]


def square_mistakes(rows: list[str], full: list[str], symbols: str, random: Random) -> list[str]:
    """Answers that are certainly wrong if the rows can be completed to the full grid."""
    size = len(rows)
    other_symbols = str.maketrans(symbols, symbols[1:] + symbols[:1])
    row, column = random.choice([(r, c) for r in range(size) for c in range(size) if rows[r][c] == "."])
    for_one = random.choice(symbols.replace(full[row][column], ""))
    one_cell = [*full[:row], full[row][:column] + for_one + full[row][column + 1 :], *full[row + 1 :]]
    emptied = [*full[:row], full[row][:column] + "." + full[row][column + 1 :], *full[row + 1 :]]
    a, b = sorted(random.sample(range(size), 2))
    swapped = [*full]
    swapped[a], swapped[b] = full[b], full[a]
    changed = [
        one_cell,
        emptied,
        rows,
        full[:-1],
        full[1:],
        [*full, full[0]],
        [*full, *full],
        [row[:-1] for row in full],
        [row + row[0] for row in full],
        [full[0] + full[1][0], full[1][1:], *full[2:]],
        ["".join(row.translate(other_symbols)) for row in full],
        *(
            grid
            for grid in (turned(full), full[::-1], [row[::-1] for row in full], swapped, turned(swapped))
            if not keeps(rows, grid)
        ),
    ]
    text = spaced(full)
    garbage = [
        f"{text} {full[0][0]}",
        f"{text}?",
        f"[{text}",
        f"{text}\n{text}",
        text.replace(full[0][0], "x"),
        text[:-1],
    ]
    named = [text.replace("\n", "\n: "), "\n".join(f"{i}. {' '.join(row)}" for i, row in enumerate(full, 1))]
    return [*map(spaced, changed), *("".join(some) for some in changed[:9]), *garbage, *named]


SUDOKU = (same_row, same_column, same_box)


def sudoku_right(problem: Problem, random: Random) -> list[str]:
    found = [completion(problem.data["rows"], DIGITS, SUDOKU, random) for _ in range(2)]
    grids = [problem.answer.replace(" ", "").split("\n"), *filter(None, found)]
    drawn = spaced(f"{row[:3]}|{row[3:6]}|{row[6:]}" for row in grids[-1]).split("\n")
    line = "\n------+-------+------\n"
    with_lines = line.join("\n".join(drawn[top : top + 3]) for top in (0, 3, 6))
    return [*map(spaced, grids), *square_layouts(random.choice(grids)), "\n".join(drawn), with_lines]


def sudoku_wrong(problem: Problem, random: Random) -> list[str]:
    rows, full = problem.data["rows"], problem.answer.replace(" ", "").split("\n")
    wrong = square_mistakes(rows, full, DIGITS, random)
    for rules in combinations(SUDOKU, 2):  # the third rule is broken
        grid = completion(rows, DIGITS, rules, random)
        if grid and has_clash(grid, SUDOKU):
            wrong.append(spaced(grid))
    empty = completion(["." * 9] * 9, DIGITS, SUDOKU, random)
    if empty and not keeps(rows, empty):
        wrong.append(spaced(empty))
    return [*wrong, spaced(full).replace("1", "１"), spaced(full).replace("3", "٣"), spaced(full).replace("2", "2.0")]


LATIN = (same_row, same_column)


def with_diagonal(rows: list[str], letter: str) -> list[str]:
    size = len(rows)
    return [row[: size - 1 - i] + letter + row[size - i :] for i, row in enumerate(rows)]


def letters_right(problem: Problem, random: Random) -> list[str]:
    rows, grids = problem.data["rows"], [problem.answer.replace(" ", "").split("\n")]
    for letter in random.sample(LETTERS, len(LETTERS)):
        grid = completion(with_diagonal(rows, letter), LETTERS, LATIN, random)
        if grid and keeps(rows, grid) and not has_clash(grid, LATIN):
            grids.append(grid)
    layouts = square_layouts(random.choice(grids))
    return [*map(spaced, grids), *layouts, *(text.upper() for text in layouts)]


def letters_wrong(problem: Problem, random: Random) -> list[str]:
    rows, full = problem.data["rows"], problem.answer.replace(" ", "").split("\n")
    wrong = square_mistakes(rows, full, LETTERS, random)
    for _ in range(3):  # a Latin square, but for the diagonal
        grid = completion(rows, LETTERS, LATIN, random)
        if grid and len(set(diagonal_of(grid))) > 1:
            wrong.append(spaced(grid))
    for rule in LATIN:  # a diagonal, but no Latin square
        grid = completion(with_diagonal(rows, diagonal_of(full)[0]), LETTERS, (rule,), random)
        if grid and has_clash(grid, LATIN):
            wrong.append(spaced(grid))
    empty = completion(with_diagonal(["." * 7] * 7, random.choice(LETTERS)), LETTERS, LATIN, random)
    if empty and not keeps(rows, empty):
        wrong.append(spaced(empty))
    return [*wrong, spaced(full).replace("a", "à"), spaced(full).replace("c", "cc").replace("b ", "")]


CASES = {
    "eight_queens": Case(queens_right, queens_wrong),
    "letter_logic_diagram": Case(letters_right, letters_wrong),
    "logic_puzzle": Case(logic_right, logic_wrong),
    "standard_sudoku": Case(sudoku_right, sudoku_wrong),
}
