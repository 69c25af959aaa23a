"""Grids to be filled by rules."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import combinations
from math import prod
from pathlib import Path
from random import Random

from suites.parsers import text_grid, unwrap
from suites.symbench.common import Data, Puzzle, Sample, rows_of, stored_samples

Cell = tuple[int, int]
"""Row and column, counted from 0."""

# Published samples whose stored solution is wrong, with the rule that it breaks.
# Published grids from which no choice obeys the rules: there is nothing to ask.
UNSOLVABLE = {f"logic_puzzle_dataset/sample_{number}" for number in (18, 24, 28, 31)}

FAULTY = {
    "logic_puzzle_dataset/sample_3": "every column has a sum of at most 4: one has 5",
    "logic_puzzle_dataset/sample_20": "every column has a sum of at most 4: one has 6",
    **dict.fromkeys(UNSOLVABLE, "there is no choice with sums of at most 4, so it is not asked"),
}

# ---------------------------------------------------------------------------------------------------------------------
# Positions


def read_positions(answer: str) -> list[Cell]:
    """The pairs of "0 3, 1 0", "(0, 3), (1, 0)" or "[[0, 3], [1, 0]]", on one line or several; none if anything else
    is in the text."""
    lines = text_grid(unwrap(answer).replace(";", ","))
    numbers = [number for line in lines for number in line]
    if any(len(line) % 2 for line in lines) or not all(re.fullmatch("[0-9]{1,2}", number) for number in numbers):
        return []
    return list(zip(map(int, numbers[::2]), map(int, numbers[1::2]), strict=True))


def write_positions(cells: Iterable[Sequence[int]]) -> str:
    return ", ".join(f"{row} {column}" for row, column in cells)


class EightQueens(Puzzle):
    """Eight queens on a chess board that do not attack each other; some are placed already, some squares blocked."""

    name, kind = "eight_queens", "rules of the board"
    # Placed queens and blocked squares. An empty board was published too; but that would be the same problem each time.
    levels = ((0, 2), (1, 1), (0, 4), (1, 3), (2, 2), (1, 4), (2, 4), (3, 3))

    def make(self, random: Random, level: tuple[int, int]) -> Data:
        placed, blocked = level
        queens = self._placement([random.sample(range(8), 8) for _ in range(8)])
        board = [["."] * 8 for _ in range(8)]
        for row, column in random.sample(queens, placed):
            board[row][column] = "Q"
        without = [(row, column) for row in range(8) for column in range(8) if (row, column) not in queens]
        for row, column in random.sample(without, blocked):
            board[row][column] = "X"
        return {"board": ["".join(row) for row in board]}

    def ask(self, data: Data) -> str:
        return (
            "On this chess board of 8 rows and 8 columns, Q is a square with a queen, X is a blocked square, and a dot "
            f"is a free square.\n\n{rows_of(data['board'])}\n\nPlace more queens, so that there are exactly eight on "
            "the board. The queens that are on it already stay where they are, a blocked square holds no queen, and no "
            "two of the eight queens are in the same row, in the same column, or on the same diagonal, however far "
            "apart they are and whatever is between them. If there are several ways to do this, any of them counts.\n\n"
            "Rows are counted from 0 at the top, columns from 0 at the left. Return the positions of all eight queens, "
            "those that were on the board included, in any order and in the format "
            "<<<row column, row column, ...>>>. For example, <<<0 3, 1 6, 2 4>>> would be three queens: in row 0 and "
            "column 3, in row 1 and column 6, and in row 2 and column 4."
        )

    def check(self, data: Data, answer: str) -> bool:
        queens = read_positions(answer)
        return (
            len(queens) == 8
            and all(row < 8 and column < 8 and data["board"][row][column] != "X" for row, column in queens)
            and set(self._squares(data, "Q")) <= set(queens)
            and not any(self._attack(*pair) for pair in combinations(queens, 2))
        )

    def solve(self, data: Data) -> str:
        placed = self._squares(data, "Q")
        free = [
            [column for r, column in self._squares(data, ".Q") if r == row and self._goes_with(placed, (row, column))]
            for row in range(8)
        ]
        return write_positions(self._placement(free))

    @staticmethod
    def _squares(data: Data, symbols: str) -> list[Cell]:
        """The squares with one of these symbols."""
        return [(r, c) for r, row in enumerate(data["board"]) for c, symbol in enumerate(row) if symbol in symbols]

    @staticmethod
    def _attack(one: Cell, other: Cell) -> bool:
        """Whether two queens attack each other; so do two on the same square."""
        rows, columns = abs(one[0] - other[0]), abs(one[1] - other[1])
        return not rows or not columns or rows == columns

    @classmethod
    def _goes_with(cls, queens: Sequence[Cell], square: Cell) -> bool:
        """Whether a queen on this square is attacked by none of the queens, unless it is one of them."""
        return square in queens or not any(cls._attack(queen, square) for queen in queens)

    @classmethod
    def _placement(cls, columns: Sequence[Sequence[int]], queens: Sequence[Cell] = ()) -> list[Cell]:
        """Eight queens, these first and then one a row, in the first of the row's columns that lets all be placed;
        none if that cannot be."""
        if len(queens) == 8:
            return list(queens)
        row = len(queens)
        for column in columns[row]:
            if cls._goes_with(queens, (row, column)) and (
                placement := cls._placement(columns, [*queens, (row, column)])
            ):
                return placement
        return []

    def published(self, folder: Path) -> Iterator[Sample]:
        symbols = str.maketrans("01", ".Q")
        for name in ("eight_queens_dataset", "eight_queens_dataset_hard"):
            for path, _, solution in stored_samples(folder, name):
                board = [row.translate(symbols) for row in solution["initial_board"]]
                yield Sample(path, {"board": board}, write_positions(solution["solution"]))


# What holds for the numbers chosen in a row or column, in words and as a check.
LINE_RULES: dict[str, tuple[str, Callable[[list[int]], bool]]] = {
    "sum": ("sum of the chosen numbers is at most 4", lambda numbers: sum(numbers) <= 4),
    "product": ("product of the chosen numbers is greater than 0", lambda numbers: prod(numbers) > 0),
}


class LogicPuzzle(Puzzle):
    """Different numbers chosen from a grid, so that each row and column keeps to a limit of its sum or product."""

    name, kind = "logic_puzzle", "rules of the choice"
    # Rows and columns, numbers to choose, largest number, rule.
    levels = (
        (2, 3, 3, "sum"),
        (3, 4, 4, "sum"),
        (4, 6, 8, "product"),
        (5, 9, 8, "product"),
        (6, 12, 12, "product"),
        (7, 16, 14, "product"),
        (8, 18, 16, "product"),
        (9, 20, 18, "product"),
        (10, 25, 20, "product"),
    )

    def make(self, random: Random, level: tuple[int, int, int, str]) -> Data:
        size, count, largest, rule = level
        while True:
            grid = [[random.randint(1, largest) for _ in range(size)] for _ in range(size)]
            if rule == "product":  # with a third of the numbers negative, about as published
                grid = [[-number if random.random() < 0.33 else number for number in row] for row in grid]
            data = {"grid": grid, "count": count, "first": [0, size - 1], "rule": rule}
            if self._choice(data):
                return data

    def ask(self, data: Data) -> str:
        grid, (row, column) = data["grid"], data["first"]
        return (
            f"Choose exactly {data['count']} cells of this grid of numbers, which has {len(grid)} rows and "
            f"{len(grid)} columns:\n\n{rows_of(grid, ', ')}\n\n"
            "- The numbers in the chosen cells are all different: no number is chosen twice, even where it stands in "
            "several cells.\n"
            f"- The cell in row {row} and column {column}, which holds {grid[row][column]}, is one of those chosen.\n"
            f"- In each row, and in each column, the {LINE_RULES[data['rule']][0]}. A row or column in which nothing "
            "is chosen is right too.\n\n"
            "Rows are counted from 0 at the top, columns from 0 at the left. If there are several such choices, any of "
            "them counts. Return the positions of all chosen cells, in any order and in the format "
            "<<<row column, row column, ...>>>. For example, <<<0 0, 1 0>>> would be two cells: in row 0 and column "
            "0, and in row 1 and column 0."
        )

    def check(self, data: Data, answer: str) -> bool:
        return self._obeys(data, read_positions(answer))

    def solve(self, data: Data) -> str:
        return write_positions(sorted(self._choice(data)))

    def _obeys(self, data: Data, cells: Sequence[Cell]) -> bool:
        """Whether these cells can be chosen."""
        grid, size = data["grid"], len(data["grid"])
        if len(cells) != data["count"] or tuple(data["first"]) not in cells or max(map(max, cells)) >= size:
            return False
        if len({grid[row][column] for row, column in cells}) < len(cells):
            return False
        lines: list[list[int]] = [[] for _ in range(2 * size)]
        for row, column in cells:
            lines[row].append(grid[row][column])
            lines[size + column].append(grid[row][column])
        return all(map(LINE_RULES[data["rule"]][1], lines))

    def _choice(self, data: Data) -> list[Cell]:
        """Cells that can be chosen; none if there is no such choice."""
        if data["rule"] == "product":
            return self._positive_products(data)
        # The grids are so small that every choice can be tried.
        first, size = tuple(data["first"]), range(len(data["grid"]))
        others = [(row, column) for row in size for column in size if (row, column) != first]
        choices = ([first, *some] for some in combinations(others, data["count"] - 1))
        return next((choice for choice in choices if self._obeys(data, choice)), [])

    @staticmethod
    def _positive_products(data: Data) -> list[Cell]:
        """`_choice` where products have to be positive: negative numbers, an even number of them in each row and in
        each column, and for the rest positive ones, wherever they are."""
        grid, first = data["grid"], tuple(data["first"])
        numbers = {(row, column): number for row, line in enumerate(grid) for column, number in enumerate(line)}
        negative = [[cell for cell in numbers if cell[0] == row and numbers[cell] < 0] for row in range(len(grid))]
        negative.sort(key=lambda cells: (first not in cells, len(cells)))  # where there is least to choose, first
        below = [[cell for cells in negative[row:] for cell in cells] for row in range(len(grid) + 1)]
        places = {number: cell for cell, number in numbers.items() if number > 0} | {numbers[first]: first}
        positive = sorted((cell for number, cell in places.items() if number > 0), key=lambda cell: cell != first)
        fewest, most = data["count"] - len(positive), data["count"] - (numbers[first] > 0)

        def choose(row: int, chosen: list[Cell], odd: set[int]) -> list[Cell] | None:
            """The negative numbers chosen in the rows before, an odd number in the odd columns, and enough further ones
            to make all columns even; None if that cannot be."""
            if len(chosen) >= fewest and not odd and (first in chosen or numbers[first] > 0):
                return chosen
            taken = {numbers[cell] for cell in chosen}
            columns = {cell[1] for cell in below[row] if numbers[cell] not in taken}
            if row == len(grid) or len(chosen) + len(odd) > most or not odd <= columns:
                return None
            for count in (*range(2, min(most - len(chosen), len(negative[row])) + 1, 2), 0):
                for some in combinations(negative[row], count):
                    longer = [*chosen, *some]
                    different = len({numbers[cell] for cell in longer}) == len(longer)
                    if different and (first not in negative[row] or first in some):
                        found = choose(row + 1, longer, odd ^ {column for _, column in some})
                        if found is not None:
                            return found
            return None

        chosen = choose(0, [], set())
        return [] if chosen is None else chosen + positive[: data["count"] - len(chosen)]

    def published(self, folder: Path) -> Iterator[Sample]:
        rules = {"sum_le_4": "sum", "product_gt_0": "product"}
        for path, question, solution in stored_samples(folder, "logic_puzzle_dataset"):
            if path not in UNSOLVABLE:
                pattern = r"select (\d+) different numbers.*square \((\d+),(\d+)\) as the first"
                count, *first = map(int, re.search(pattern, question, re.DOTALL).groups())
                rule = rules[solution["constraints"]["type"]]
                data = {"grid": solution["grid"], "count": count, "first": first, "rule": rule}
                yield Sample(path, data, write_positions(solution["solution"]))


# ---------------------------------------------------------------------------------------------------------------------
# Squares of symbols


class Square(Puzzle):
    """A square grid to be completed: in each of its groups of cells, each symbol occurs once. Data: the rows, each a
    string with a dot for an empty cell."""

    kind = "rules of the grid"
    symbols: str
    groups: Sequence[Sequence[Cell]]

    def check(self, data: Data, answer: str) -> bool:
        rows = self._read(answer)
        return (
            [len(row) for row in rows] == [len(self.symbols)] * len(self.symbols)
            and all(
                given in (".", new)
                for old, row in zip(data["rows"], rows, strict=True)
                for given, new in zip(old, row, strict=True)
            )
            and all({rows[r][c] for r, c in group} == set(self.symbols) for group in self.groups)
        )

    def _read(self, answer: str) -> list[str]:
        """The rows of an answer, each as a string: a line each, in brackets, or all in one line; with separators,
        lines drawn between the cells, or neither."""
        size = len(self.symbols)
        undrawn = re.sub(r"^[-+|= ]+$|\|", " ", unwrap(answer).replace(";", "\n"), flags=re.MULTILINE)
        rows = ["".join(row) for row in text_grid(undrawn)]
        return [rows[0][i : i + size] for i in range(0, len(rows[0]), size)] if len(rows) == 1 else rows

    @staticmethod
    def _given(data: Data) -> dict[Cell, str]:
        return {(r, c): symbol for r, row in enumerate(data["rows"]) for c, symbol in enumerate(row) if symbol != "."}

    def _rows(self, cells: dict[Cell, str]) -> list[str]:
        """The rows of a grid with these cells, the others being empty."""
        size = range(len(self.symbols))
        return ["".join(cells.get((row, column), ".") for column in size) for row in size]

    @cached_property
    def _near(self) -> dict[Cell, set[Cell]]:
        """For each cell, the cells that share a group with it, and itself."""
        near: dict[Cell, set[Cell]] = {}
        for group in self.groups:
            for cell in group:
                near.setdefault(cell, set()).update(group)
        return near

    def _completed(self, given: dict[Cell, str]) -> dict[Cell, str] | None:
        """All cells, with those that are given; None if there is no way to complete them."""

        def complete(choices: dict[Cell, str]) -> dict[Cell, str] | None:
            """A symbol for each of these cells out of its choices; a cell with the fewest comes first."""
            if not choices:
                return {}
            cell = min(choices, key=lambda cell: len(choices[cell]))
            if len(choices[cell]) > 1:  # of two symbols, either is to leave many other cells with one
                pairs = [cell for cell, left in choices.items() if len(left) == 2]
                cell = max(pairs, key=lambda cell: len(self._near[cell].intersection(pairs)), default=cell)
            neighbours = self._near[cell]
            for symbol in choices[cell]:
                rest = {
                    other: left.replace(symbol, "") if other in neighbours else left
                    for other, left in choices.items()
                    if other != cell
                }
                if all(rest.values()) and (completed := complete(rest)) is not None:
                    return {cell: symbol, **completed}
            return None

        choices = {}
        for cell, others in self._near.items():
            if cell not in given:
                seen = {given.get(other) for other in others}
                choices[cell] = "".join(symbol for symbol in self.symbols if symbol not in seen)
        completed = complete(choices)
        return None if completed is None else {**given, **completed}

    def _without(self, cells: dict[Cell, str], count: int, random: Random) -> Data:
        """The problem that remains of a full grid when this number of its cells has been emptied."""
        kept = random.sample(sorted(cells), len(cells) - count)
        return {"rows": self._rows({cell: cells[cell] for cell in kept})}

    def _end_of_question(self) -> str:
        """The rules and the format that all squares share."""
        size, some = len(self.symbols), self.symbols[:3]
        example = rows_of(some[i:] + some[:i] for i in range(3))
        return (
            "The cells that are filled already stay as they are. If there are several ways to complete the grid, any "
            f"of them counts. Return the whole grid between <<< and >>>, as {size} lines of {size} cells with a space "
            "between neighbouring cells. A grid of only three rows, for example, would be returned like this:\n"
            f"<<<\n{example}\n>>>"
        )


class StandardSudoku(Square):
    """A sudoku of nine rows and columns."""

    name, levels = "standard_sudoku", (30, 35, 40, 45, 50, 55)  # empty cells
    symbols = "123456789"
    groups = (
        *([(row, column) for column in range(9)] for row in range(9)),
        *([(row, column) for row in range(9)] for column in range(9)),
        *([(top + i, left + j) for i in range(3) for j in range(3)] for top in (0, 3, 6) for left in (0, 3, 6)),
    )

    def make(self, random: Random, level: int) -> Data:
        # Three boxes that share no row or column can be filled at will, and there is always a way to go on.
        boxes = [self.groups[18 + number] for number in (0, 4, 8)]
        start = {
            cell: symbol for box in boxes for cell, symbol in zip(box, random.sample(self.symbols, 9), strict=True)
        }
        return self._without(self._completed(start), level, random)

    def ask(self, data: Data) -> str:
        return (
            "Complete this sudoku, a grid of 9 rows and 9 columns in which a dot is an empty cell:\n\n"
            f"{rows_of(data['rows'])}\n\nPut a digit from 1 to 9 into each empty cell, so that each row, each column, "
            "and each box holds every digit from 1 to 9 exactly once. The boxes are the nine squares of 3 x 3 cells "
            f"that divide the grid, the first of them in rows 1 to 3 and columns 1 to 3. {self._end_of_question()}"
        )

    def solve(self, data: Data) -> str:
        return rows_of(self._rows(self._completed(self._given(data))))

    def published(self, folder: Path) -> Iterator[Sample]:
        for path, _, solution in stored_samples(folder, "standard_sudoku"):
            rows = ["".join(str(number or ".") for number in row) for row in solution["puzzle"]]
            yield Sample(path, {"rows": rows}, rows_of(solution["solution"]))


class LetterLogicDiagram(Square):
    """A Latin square of seven letters with one and the same letter all along a diagonal."""

    name, levels = "letter_logic_diagram", (15, 20, 25, 30)  # empty cells
    symbols = "abcdefg"
    groups = (
        *([(row, column) for column in range(7)] for row in range(7)),
        *([(row, column) for row in range(7)] for column in range(7)),
    )
    diagonal = tuple((row, 6 - row) for row in range(7))

    def make(self, random: Random, level: int) -> Data:
        # The differences of two orders of the numbers 0 to 6: a Latin square, with 0 where they meet.
        order, letters = random.sample(range(7), 7), random.sample(self.symbols, 7)
        cells = {(i, 6 - j): letters[(order[i] - order[j]) % 7] for i in range(7) for j in range(7)}
        return self._without(cells, level, random)

    def ask(self, data: Data) -> str:
        return (
            "Complete this grid of 7 rows and 7 columns, in which a dot is an empty cell:\n\n"
            f"{rows_of(data['rows'])}\n\nPut one of the letters a, b, c, d, e, f, g into each empty cell, so that each "
            "row and each column holds every one of these letters exactly once, and all seven cells on the diagonal "
            "from the top right corner to the bottom left corner hold the same letter. Which letter that is, is left "
            f"to you unless the grid tells. {self._end_of_question()}"
        )

    def check(self, data: Data, answer: str) -> bool:
        answer = answer.lower()
        return super().check(data, answer) and len({self._read(answer)[r][c] for r, c in self.diagonal}) == 1

    def solve(self, data: Data) -> str:
        given = self._given(data)
        for letter in self.symbols:
            # In a row, the letter of the diagonal stands on the diagonal and nowhere else.
            if all((symbol == letter) == (cell in self.diagonal) for cell, symbol in given.items()):
                completed = self._completed({**given, **dict.fromkeys(self.diagonal, letter)})
                if completed:
                    return rows_of(self._rows(completed))
        raise ValueError("no letter on the diagonal leaves a way to complete the grid")

    def published(self, folder: Path) -> Iterator[Sample]:
        for path, _, solution in stored_samples(folder, "letter_logic_diagram"):
            rows = ["".join(letter or "." for letter in row) for row in solution["grid"]]
            yield Sample(path, {"rows": rows}, rows_of(solution["solution"]))


TASKS = [EightQueens(), LetterLogicDiagram(), LogicPuzzle(), StandardSudoku()]
