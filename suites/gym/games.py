"""Puzzles on boards and with numbers. Those whose answer is a sequence of moves are in plans.py."""

import operator
import re
from collections.abc import Iterator
from itertools import product
from random import Random
from typing import Any

from suites.base import Problem
from suites.gym.common import Entry, GymTask, dataset, same_number
from suites.gym.grids import same_grid
from suites.parsers import exact_value, number_grid

# ---------------------------------------------------------------------------------------------------------------------
# Countdown

MAX_EXPRESSION = 200  # characters; six numbers take sixty


def reaches_the_target(problem: Problem, answer: str) -> bool:
    """An expression of + - * / and round brackets that has exactly the target's value and in which each of the given
    numbers stands once, and no other."""
    text = " ".join(answer.translate(str.maketrans("×÷−", "*/-")).split())
    if len(text) > MAX_EXPRESSION or not re.fullmatch(r"[-+*/() 0-9]+", text):
        return False
    if sorted(map(int, re.findall(r"[0-9]+", text))) != sorted(problem.data["numbers"]):
        return False
    try:
        return exact_value(text) == problem.data["target"]
    except (SyntaxError, ValueError, ZeroDivisionError):
        return False


# ---------------------------------------------------------------------------------------------------------------------
# Grids


def _signs(line: str) -> str:
    """The signs of a line of a futoshiki puzzle, whatever they were typed as."""
    return "".join(re.findall(r"[<>∧∨]", line.translate(str.maketrans("^vV", "∧∨∨"))))


def solves_futoshiki(problem: Problem, answer: str) -> bool:
    """The one solution, row by row. The signs between the numbers are copied from the question: all of those in rows,
    and all of those between rows, are there as they were, or are left out."""
    rows, signs = [], {True: "", False: ""}
    for line in re.sub(r"\]\s*,?\s*\[", "\n", answer).splitlines():
        numbers = re.findall(r"[0-9]", line)
        if re.sub(r"[\s,|\[\]<>∧∨^vV0-9]", "", line):
            return False
        signs[bool(numbers)] += _signs(line)
        if numbers:
            rows.append([int(number) for number in numbers])
    data = problem.data
    return (
        rows == data["solution"]
        and signs[True] in ("", data["signs_in_rows"])
        and signs[False] in ("", data["signs_between_rows"])
    )


def futoshiki(entry: Entry) -> dict[str, Any]:
    lines = entry["answer"].splitlines()
    return {
        "solution": entry["metadata"]["solution"],
        "signs_in_rows": "".join(map(_signs, lines[::2])),
        "signs_between_rows": "".join(map(_signs, lines[1::2])),
    }


Cell = tuple[int, int]
Signs = dict[tuple[Cell, Cell], str]


def _random_solution(size: int, random: Random) -> list[list[int]]:
    """The Latin square that the library finds: the first one that fits, row by row, with the numbers of each row in
    random order. It goes through all permutations of a row; here those that do not fit are cut off at their first cell
    that is taken."""
    rows: list[list[int]] = []

    def fits(row: list[int], numbers: list[int]) -> Iterator[list[int]]:
        if len(row) == size:
            yield row
            return
        for number in numbers:
            if number not in row and all(above[len(row)] != number for above in rows):
                yield from fits([*row, number], numbers)

    def fill() -> bool:
        if len(rows) == size:
            return True
        numbers = list(range(1, size + 1))
        random.shuffle(numbers)
        for row in fits([], numbers):
            rows.append(row)
            if fill():
                return True
            rows.pop()
        return False

    fill()
    return rows


def _count_solutions(grid: list[list[int]], signs: Signs, limit: int = 2) -> int:
    """How many ways there are to fill the zeros, counted up to `limit`; the cell with the fewest candidates first."""
    size = len(grid)
    bounds: dict[Cell, list[tuple[Cell, bool]]] = {}  # of a cell: another one, and whether that must be larger
    for (one, other), sign in signs.items():
        bounds.setdefault(one, []).append((other, sign == "<"))
        bounds.setdefault(other, []).append((one, sign == ">"))
    empty = {(r, c) for r in range(size) for c in range(size) if not grid[r][c]}
    in_rows = [set(row) for row in grid]
    in_columns = [set(column) for column in zip(*grid, strict=True)]

    def candidates(cell: Cell) -> list[int]:
        low, high = 1, size
        for (r, c), larger in bounds.get(cell, ()):
            if larger and grid[r][c]:
                high = min(high, grid[r][c] - 1)
            elif grid[r][c]:
                low = max(low, grid[r][c] + 1)
        taken = in_rows[cell[0]] | in_columns[cell[1]]
        return [number for number in range(low, high + 1) if number not in taken]

    def count(limit: int) -> int:
        if not empty:
            return 1
        found = 0
        r, c = cell = min(empty, key=lambda cell: len(candidates(cell)))
        empty.remove(cell)
        for number in candidates(cell):
            grid[r][c] = number
            in_rows[r].add(number)
            in_columns[c].add(number)
            found += count(limit - found)
            in_rows[r].remove(number)
            in_columns[c].remove(number)
            if found >= limit:
                break
        grid[r][c] = 0
        empty.add(cell)
        return found

    return count(limit)


class Futoshiki(GymTask):
    """The library's own puzzles in half of its time. Its solver gives up on a few that can be solved, and stays."""

    def make(self, seed: int) -> Entry | None:
        library = dataset(self.name)
        library._generate_random_solution, library.count_solutions = _random_solution, _count_solutions
        return super().make(seed)


def has_the_weights(problem: Problem, answer: str) -> bool:
    """A grid of zeros and ones in which the ones of each row and each column have the given weight."""
    data, grid = problem.data, number_grid(answer)
    if [len(row) for row in grid] != [len(data["col_sums"])] * len(data["row_sums"]):
        return False
    return (
        all(cell in (0, 1) for row in grid for cell in row)
        and [sum(j for j, cell in enumerate(row, 1) if cell) for row in grid] == data["row_sums"]
        and [sum(i for i, cell in enumerate(column, 1) if cell) for column in zip(*grid, strict=True)]
        == data["col_sums"]
    )


def completes_the_sums(problem: Problem, answer: str) -> bool:
    """The matrix with its zeros replaced by the given numbers, each used once, so that the last cell of every row and
    column is the sum of the others; several ways may be right."""
    puzzle, grid = problem.data["puzzle"], number_grid(answer)
    if [len(row) for row in grid] != [len(row) for row in puzzle] or any(None in row for row in grid):
        return False
    cells = [pair for row, given in zip(grid, puzzle, strict=True) for pair in zip(row, given, strict=True)]
    return (
        all(cell == given for cell, given in cells if given)
        and sorted(cell for cell, given in cells if not given) == sorted(problem.data["candidate_numbers"])
        and all(sum(line[:-1]) == line[-1] for line in [*grid, *zip(*grid, strict=True)])
    )


# ---------------------------------------------------------------------------------------------------------------------
# Quantum lock

Button = dict[str, Any]


def _press(button: Button, number: int) -> int:
    change = {"add": operator.add, "subtract": operator.sub, "multiply": operator.mul}[button["type"]]
    return change(number, button["value"])


def _works(button: Button, light: str) -> bool:
    return button["active_state"] in ("any", light)


_OTHER = {"red": "green", "green": "red"}


def opens_the_lock(problem: Problem, answer: str) -> bool:
    """Buttons that bring the number to the target, as few as in the reference, each of them pressed while it works."""
    data = problem.data
    buttons = {button["name"]: button for button in data["buttons"]}
    names = re.sub(r"→|->|=>|[\s,\[\]]", "", answer).upper()
    number, light = data["initial_value"], data["initial_state"]
    if len(names) != len(data["solution_path"]):
        return False
    for name in names:
        if name not in buttons or not _works(buttons[name], light):
            return False
        number, light = _press(buttons[name], number), _OTHER[light]
    return number == data["target_value"]


def works_at_every_press(entry: Entry) -> bool:
    """By the question's words every press changes the light, so one of a button that does nothing else can be useful;
    the library allows none. Where such a press makes a sequence as short as the reference or shorter, the question has
    two answers: in one item of three."""
    data = entry["metadata"]
    now = {(data["initial_value"], data["initial_state"], False)}  # number, light, whether a press did nothing else
    seen = set(now)
    for _ in data["solution_path"]:
        after = set()
        for number, light, idle in now:
            for button in data["buttons"]:
                works = _works(button, light)
                after.add((_press(button, number) if works else number, _OTHER[light], idle or not works))
        now = after - seen
        seen |= now
        if any(number == data["target_value"] and idle for number, _, idle in now):
            return False
    return True


# ---------------------------------------------------------------------------------------------------------------------
# Go

Point = tuple[int, int]


def _group(board: list[list[str]], point: Point) -> tuple[set[Point], set[Point]]:
    """The stones connected with the one at this point, and their liberties."""
    color = board[point[0]][point[1]]
    stones, liberties, open_ends = {point}, set(), [point]
    while open_ends:
        r, c = open_ends.pop()
        for row, column in ((r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)):
            if not (0 <= row < len(board) and 0 <= column < len(board)):
                continue
            if board[row][column] == ".":
                liberties.add((row, column))
            elif board[row][column] == color and (row, column) not in stones:
                stones.add((row, column))
                open_ends.append((row, column))
    return stones, liberties


def one_capture(entry: Entry) -> bool:
    """In two items of five the reference captures nothing, as white has another way out, or other moves capture as
    well, or stones without liberties stand on the board, which cannot be. In the others a single move captures."""
    board = entry["metadata"]["board"]
    size = len(board)
    last_liberties = set()
    for point in product(range(size), repeat=2):
        color = board[point[0]][point[1]]
        if color == ".":
            continue
        _, liberties = _group(board, point)
        if not liberties:
            return False
        if color == "O" and len(liberties) == 1:
            last_liberties |= liberties
    return [f"{chr(ord('A') + c)}{size - r}" for r, c in last_liberties] == [entry["answer"]]


def same_point(problem: Problem, answer: str) -> bool:
    """Column and row: C4, c4, (C, 4)."""
    if answer.startswith("(") and answer.endswith(")"):
        answer = answer[1:-1].strip()
    point = re.fullmatch(r"([A-Za-z])[\s,-]*([0-9]{1,2})", answer)
    return point is not None and point[1].upper() + point[2] == problem.answer


# ---------------------------------------------------------------------------------------------------------------------


TASKS = [
    GymTask("countdown", reaches_the_target, keep=("numbers", "target")),
    Futoshiki("futoshiki", solves_futoshiki, keep=futoshiki),
    GymTask("kakurasu", has_the_weights, keep=("row_sums", "col_sums")),
    GymTask("maze", same_number),
    GymTask("mini_sudoku", same_grid),
    GymTask(
        "quantum_lock",
        opens_the_lock,
        sound=works_at_every_press,
        keep=("initial_value", "initial_state", "target_value", "buttons", "solution_path"),
    ),
    GymTask("survo", completes_the_sums, keep=("puzzle", "candidate_numbers")),
    GymTask("tsumego", same_point, sound=one_capture),
]
