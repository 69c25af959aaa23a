"""Boards and matrices: what they look like after something has happened to them, or where something is."""

import string
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import chain, cycle, islice, product
from pathlib import Path
from random import Random

from suites.parsers import fraction_parts, number_row, text_grid, unwrap
from suites.symbench.common import Data, Puzzle, Sample, is_grid, numbered, rows_of, stored_samples

PLACES = "(r, c) is the cell in row r, counted from the top, and column c, counted from the left, both starting with 1."


def grid_form(*rows: str) -> str:
    """How to write a grid as an answer. The example has two rows and three columns, as no answer has."""
    example = "\n".join(rows)
    return (
        "Return it in the format <<<grid>>>, with a line for each row from top to bottom and with spaces between the "
        "cells. One line with all the cells in this order is accepted, too. For example, a grid of two rows and three "
        f"columns is written like this:\n\n<<<{example}>>>"
    )


def place_text(place: Sequence[int]) -> str:
    """A place in the form that `PLACES` explains."""
    return f"({place[0]}, {place[1]})"


def is_board(answer: str, board: Sequence[str]) -> bool:
    """`is_grid` where each cell is one character and each row a string: nothing needs to stand between the cells."""
    rows = ["".join(row) for row in text_grid(answer)]
    return rows in (list(board), ["".join(board)])


_STEPS = {"u": (-1, 0), "d": (1, 0), "l": (0, -1), "r": (0, 1)}


class PowersOfTwo(Puzzle):
    """One number of a grid is moved step by step, and merges with equal ones."""

    name, kind = "2048", "equal grid"
    levels = ((2, 2), (3, 3), (4, 4), (5, 5), (5, 6))  # rows and columns, moves

    def make(self, random: Random, level: tuple[int, int]) -> Data:
        size, steps = level
        # Most random moves lead nowhere. These change the grid, and most of them merge something, which is why the
        # numbers of a grid are close to each other. Two merges are rare in the smallest grid, so it has one at most.
        merges = random.choice((0, 1, 1, min(2, size - 1)))
        while True:
            filled, lowest = random.randint(size, 2 * size), random.randint(1, 3)
            cells = [2 ** random.randint(lowest, lowest + 2) for _ in range(filled)] + [0] * (size * size - filled)
            random.shuffle(cells)
            grid = [cells[i : i + size] for i in range(0, size * size, size)]
            start = random.choice([i for i, number in enumerate(cells) if number])
            moves = "".join(random.choices("udlr", k=steps))
            data = {"grid": grid, "start": [start // size + 1, start % size + 1], "moves": moves}
            after, merged = self._play(data)
            if merged == merges and after != grid:
                return data

    def ask(self, data: Data) -> str:
        return (
            "The cells of this grid hold powers of 2, and 0 stands for an empty cell:\n\n"
            f"{rows_of(data['grid'])}\n\n"
            f"One number is moved, the one that is at {place_text(data['start'])} now. {PLACES} Each letter of "
            f'"{data["moves"]}", from left to right, tries to move this number by one cell: u up, d down, l to the '
            "left, r to the right.\n"
            "- If the next cell in this direction is empty, the number moves there, and the cell that it leaves "
            "becomes empty.\n"
            "- If the next cell holds an equal number, the two merge in that cell into one number, twice as large, and "
            "the cell that was left becomes empty. The merged number is the one that the letters after this one move; "
            "it may merge again.\n"
            "- If the next cell holds a different number, or if there is no next cell because the grid ends, nothing "
            "happens, and the next letter follows.\n"
            "No other number moves. If the starting cell is empty, the grid stays as it is.\n\n"
            f"What does the grid look like in the end? {grid_form('0 64 2', '8 0 0')}"
        )

    def check(self, data: Data, answer: str) -> bool:
        return is_grid(unwrap(answer), self._play(data)[0])

    def solve(self, data: Data) -> str:
        return rows_of(self._play(data)[0])

    @staticmethod
    def _play(data: Data) -> tuple[list[list[int]], int]:
        """The grid in the end, and how often something was merged."""
        grid, merges = [[*row] for row in data["grid"]], 0
        row, column = (number - 1 for number in data["start"])
        if not grid[row][column]:
            return grid, merges
        for down, right in map(_STEPS.__getitem__, data["moves"]):
            to_row, to_column = row + down, column + right
            if not (0 <= to_row < len(grid) and 0 <= to_column < len(grid)):
                continue
            number, other = grid[row][column], grid[to_row][to_column]
            if other in (0, number):
                grid[to_row][to_column], grid[row][column] = number + other, 0
                row, column = to_row, to_column
                merges += other == number
        return grid, merges

    def published(self, folder: Path) -> Iterator[Sample]:
        for path, _, solution in stored_samples(folder, "2048_dataset"):
            start = [number + 1 for number in solution["start_pos"]]
            data = {"grid": solution["grid"], "start": start, "moves": solution["moves"]}
            yield Sample(path, data, solution["solution"])


class LightPuzzles(Puzzle):
    """Buttons switch some of the lights of a grid; which are on after some presses?"""

    name, kind = "light_puzzles", "equal grid"
    levels = ((2, 1, 1), (3, 2, 2), (4, 2, 3), (4, 3, 3), (5, 3, 4))  # rows and columns, buttons, presses

    def make(self, random: Random, level: tuple[int, int, int]) -> Data:
        size, count, presses = level
        places = [[row, column] for row, column in product(range(1, size + 1), repeat=2)]
        while True:
            data = {
                "lights": ["".join(random.choices("01", k=size)) for _ in range(size)],
                "buttons": {
                    button: random.sample(places, random.randint(2, len(places) // 2))
                    for button in string.ascii_uppercase[:count]
                },
                "presses": random.choices(string.ascii_uppercase[:count], k=presses),
            }
            if self._after(data) != data["lights"]:
                return data

    def ask(self, data: Data) -> str:
        buttons = "\n".join(
            f"- Button {button}: {', '.join(map(place_text, places))}" for button, places in data["buttons"].items()
        )
        return (
            "In this grid of lights, 1 is a light that is on, and 0 one that is off:\n\n"
            f"{rows_of(data['lights'])}\n\n"
            "Pressing a button switches each of its lights: those that are off go on, and those that are on go off. "
            f"The other lights stay as they are. The buttons and their lights are listed here; {PLACES}\n\n"
            f"{buttons}\n\n"
            f"The buttons are pressed in this order:\n\n{numbered([f'Button {button}' for button in data['presses']])}"
            "\n\nWhat does the grid look like after the last press? "
            f"{grid_form('1 0 0', '0 1 1')}"
        )

    def check(self, data: Data, answer: str) -> bool:
        return is_board(unwrap(answer), self._after(data))

    def solve(self, data: Data) -> str:
        return rows_of(self._after(data))

    @staticmethod
    def _after(data: Data) -> list[str]:
        lights = [list(row) for row in data["lights"]]
        for button in data["presses"]:
            for row, column in data["buttons"][button]:
                lights[row - 1][column - 1] = "0" if lights[row - 1][column - 1] == "1" else "1"
        return ["".join(row) for row in lights]

    def published(self, folder: Path) -> Iterator[Sample]:
        for path, _, solution in stored_samples(folder, "light_puzzles_dataset"):
            lights = ["".join(map(str, row)) for row in solution["initial_state"]]
            data = {"lights": lights, "buttons": solution["buttons"], "presses": solution["operations"]}
            yield Sample(path, data, ",".join(map(str, solution["solution"])))


_LETTERS = string.ascii_uppercase
_MIXED = _LETTERS + "123456789"
_SYMBOLS = "!#%&+=?@^"  # none with which texts are decorated, such as * or $


class MatrixTransformation(Puzzle):
    """A matrix of letters, digits or symbols is turned clockwise."""

    name, kind = "matrix_transformation", "equal matrix"
    levels = ((2, 2, _LETTERS), (2, 3, _MIXED), (3, 3, _LETTERS), (3, 4, _MIXED), (4, 4, _SYMBOLS))  # rows, columns

    def make(self, random: Random, level: tuple[int, int, str]) -> Data:
        rows, columns, characters = level
        return {"matrix": ["".join(random.choices(characters, k=columns)) for _ in range(rows)]}

    def ask(self, data: Data) -> str:
        return (
            "Turn this matrix by 90 degrees clockwise, so that its left column becomes its top row, read from the "
            f"bottom to the top:\n\n{rows_of(data['matrix'])}\n\n"
            f"What does the matrix look like then? Copy its cells exactly. {grid_form('a b c', 'd e f')}"
        )

    def check(self, data: Data, answer: str) -> bool:
        # Published matrices have cells such as $ and *, which are no decoration: the answer as it is comes first.
        return any(is_board(text, self._turned(data)) for text in (answer, unwrap(answer)))

    def solve(self, data: Data) -> str:
        return rows_of(self._turned(data))

    @staticmethod
    def _turned(data: Data) -> list[str]:
        return ["".join(column) for column in zip(*reversed(data["matrix"]), strict=True)]

    def published(self, folder: Path) -> Iterator[Sample]:
        for path, _, solution in stored_samples(folder, "matrix_transformation_dataset"):
            yield Sample(path, {"matrix": ["".join(row) for row in solution["matrix"]]}, solution["formatted_solution"])


class PatternRecognition(Puzzle):
    """Where in a grid of letters one letter fills a square."""

    name, kind = "pattern_recognition", "equal pair"
    levels = ((6, 8), (9, 11), (12, 15))  # the fewest and the most rows or columns

    def make(self, random: Random, level: tuple[int, int]) -> Data:
        while True:
            height, width = random.randint(*level), random.randint(*level)
            side = random.randint(3, min(height, width) // 2)
            grid = [random.choices(string.ascii_uppercase, k=width) for _ in range(height)]
            top, left = random.randint(0, height - side), random.randint(0, width - side)
            letter = random.choice(string.ascii_uppercase)
            for row in grid[top : top + side]:
                row[left : left + side] = letter * side
            data = {"letters": ["".join(row) for row in grid]}
            # There may be squares by chance, too: then there are more corners than those in the planted one.
            corners = [corner for corner, square in self._squares(data).items() if square >= 3]
            if len(corners) == (side - 2) ** 2:
                return data

    def ask(self, data: Data) -> str:
        return (
            "Somewhere in this grid, a single letter fills a square: the cells of three or more neighbouring rows in "
            f"as many neighbouring columns are all the same.\n\n{rows_of(data['letters'])}\n\n"
            "Find the largest such square; no other is as large. In which row and which column is the cell in its "
            "bottom right corner? Rows are counted from the top and columns from the left, both starting with 0.\n\n"
            "Return your answer in the format <<<[row, column]>>>, for example <<<[0, 0]>>> for the cell in the top "
            "left corner of the grid."
        )

    def check(self, data: Data, answer: str) -> bool:
        return number_row(unwrap(answer)) == self._corner(data)

    def solve(self, data: Data) -> str:
        return str(self._corner(data))

    def _corner(self, data: Data) -> list[int]:
        squares = self._squares(data)
        return list(max(squares, key=squares.__getitem__))

    @staticmethod
    def _squares(data: Data) -> dict[tuple[int, int], int]:
        """The side of the largest square of one letter that has its bottom right corner in a cell, for each cell."""
        letters = data["letters"]
        sides: dict[tuple[int, int], int] = {}
        for row, column in product(range(len(letters)), range(len(letters[0]))):
            above = [(row - 1, column - 1), (row - 1, column), (row, column - 1)]
            joined = row and column and all(letters[r][c] == letters[row][column] for r, c in above)
            sides[row, column] = 1 + min(map(sides.__getitem__, above)) if joined else 1
        return sides

    def published(self, folder: Path) -> Iterator[Sample]:
        for path, question, solution in stored_samples(folder, "pattern_recognition"):
            matrix = question.split("matrix is\n\n")[1].split("\n\n")[0]
            data = {"letters": ["".join(line.split()) for line in matrix.splitlines()]}
            yield Sample(path, data, f"[{solution['row']}, {solution['column']}]")


class Pooling(Puzzle):
    """The largest number or the average of each window that fits into a matrix."""

    name, kind = "pooling", "equal or within 0.005"
    levels = (  # rows and columns of the matrix, those of the window, what is taken
        (3, 2, "max"),
        (4, 2, "max"),
        (4, 2, "average"),
        (5, 3, "max"),
        (5, 3, "average"),
        (6, 3, "average"),
    )

    # Two decimals are enough, and no two averages of four or nine whole numbers are as near to each other.
    _TOLERANCE = Fraction(5, 1000)

    def make(self, random: Random, level: tuple[int, int, str]) -> Data:
        size, window, pooling = level
        matrix = [[random.randint(-10, 20) for _ in range(size)] for _ in range(size)]
        return {"matrix": matrix, "window": window, "pooling": pooling}

    def ask(self, data: Data) -> str:
        window = f"{data['window']} x {data['window']}"
        if data["pooling"] == "max":
            taken, form, example = "the largest of its numbers", "", ("7 -2 0", "15 8 8")
        else:
            taken, example = "the average of its numbers", ("7.25 -2.00 0.11", "5.78 8.00 -1.50")
            form = (
                "Write an average as a decimal number, or as a fraction such as -7/4. It is right if it differs from "
                "the exact one by at most 0.005, so two decimals, correctly rounded, are enough. "
            )
        return (
            f"A window of {window} cells slides over the following matrix: it starts in the top left corner and takes "
            "every position in which it lies within the matrix, one cell further to the right or one cell further "
            f"down at a time, so that neighbouring windows overlap.\n\n{rows_of(data['matrix'])}\n\n"
            f"Pooling replaces each window by {taken}. These numbers form a smaller matrix, in which they lie as their "
            f"windows do: the number of the topmost and leftmost window is in the top left corner.\n\n"
            f"What is the smaller matrix? {form}{grid_form(*example)}"
        )

    def check(self, data: Data, answer: str) -> bool:
        rows, pooled = text_grid(unwrap(answer)), self._pooled(data)
        tolerance = 0 if data["pooling"] == "max" else self._TOLERANCE
        return [len(row) for row in rows] in ([len(pooled)] * len(pooled), [len(pooled) ** 2]) and all(
            (value := self._value(cell)) is not None and abs(value - number) <= tolerance
            for cell, number in zip(chain(*rows), chain(*pooled), strict=True)
        )

    def solve(self, data: Data) -> str:
        digits = 0 if data["pooling"] == "max" else 2
        return rows_of([[f"{float(number):.{digits}f}" for number in row] for row in self._pooled(data)])

    @staticmethod
    def _value(cell: str) -> Fraction | None:
        parts = fraction_parts(cell)
        return parts[0] / parts[1] if parts and parts[1] else None

    @staticmethod
    def _pooled(data: Data) -> list[list[Fraction]]:
        matrix, window = data["matrix"], data["window"]
        starts = range(len(matrix) - window + 1)

        def pool(top: int, left: int) -> Fraction:
            numbers = [number for row in matrix[top : top + window] for number in row[left : left + window]]
            return Fraction(max(numbers)) if data["pooling"] == "max" else Fraction(sum(numbers), len(numbers))

        return [[pool(top, left) for left in starts] for top in starts]

    def published(self, folder: Path) -> Iterator[Sample]:
        for path, _, solution in stored_samples(folder, "pooling_dataset"):
            data = {
                "matrix": solution["matrix"],
                "window": solution["window_size"],
                "pooling": solution["pooling_type"],
            }
            yield Sample(path, data, rows_of(solution["solution"]))


_OTHER = {"B": "W", "W": "B"}
_DIRECTIONS = [direction for direction in product((-1, 0, 1), repeat=2) if direction != (0, 0)]


class Reversi(Puzzle):
    """The board after some moves of a game like Reversi."""

    name, kind = "reversi", "equal board"
    levels = ((4, 1), (4, 2), (6, 2), (4, 3), (6, 3))  # rows and columns, moves

    def make(self, random: Random, level: tuple[int, int]) -> Data:
        size, rounds = level
        places = list(product(range(size), repeat=2))
        while True:
            boards, moves = [self._opening(size)], []
            earlier = 2 * random.randrange(size)  # an even number, because it is black's turn then
            for mover in islice(cycle("BW"), earlier + rounds):
                legal = [place for place in places if self._flipped(boards[-1], place, mover)]
                if not legal:
                    break
                moves.append(random.choice(legal))
                boards.append(self._moved(boards[-1], moves[-1], mover))
            else:
                return {"board": boards[earlier], "moves": [[row + 1, column + 1] for row, column in moves[earlier:]]}

    def ask(self, data: Data) -> str:
        moves = [
            f"{mover} puts a piece on {place_text(place)}."
            for mover, place in zip(cycle(("Black", "White")), data["moves"], strict=False)
        ]
        return (
            "Black and White play a game like Reversi. On their board, B is a black piece, W is a white piece, and E "
            f"is an empty cell:\n\n{rows_of(data['board'])}\n\n"
            f"They move in turn, and Black is the first:\n\n{numbered(moves)}\n\n{PLACES}\n\n"
            "After a player has put a piece on an empty cell, look from there in each of the eight directions: up, "
            "down, left, right, and along the four diagonals. If the next cells in this direction hold one or more "
            "pieces of the other colour without a gap, and the cell directly behind them holds a piece of the "
            "player's own colour, then these pieces of the other colour are flipped to the player's colour. Pieces "
            "that were flipped flip no others. Each of the moves here flips at least one piece.\n\n"
            f"What does the board look like after the last move? {grid_form('E B W', 'B B E')}"
        )

    def check(self, data: Data, answer: str) -> bool:
        return is_board(unwrap(answer).upper(), self._after(data))

    def solve(self, data: Data) -> str:
        return rows_of(self._after(data))

    @staticmethod
    def _opening(size: int) -> list[str]:
        """An empty board but for four pieces in the middle."""
        side, empty = "E" * (size // 2 - 1), ["E" * size] * (size // 2 - 1)
        return [*empty, f"{side}WB{side}", f"{side}BW{side}", *empty]

    @staticmethod
    def _flipped(board: list[str], place: tuple[int, int], mover: str) -> list[tuple[int, int]]:
        """The places of the pieces that are flipped by a new piece there; none if the place is not empty."""
        inside, flipped = range(len(board)), []
        if board[place[0]][place[1]] != "E":
            return flipped
        for down, right in _DIRECTIONS:
            row, column, passed = place[0] + down, place[1] + right, []
            while row in inside and column in inside and board[row][column] == _OTHER[mover]:
                passed.append((row, column))
                row, column = row + down, column + right
            if row in inside and column in inside and board[row][column] == mover:
                flipped += passed
        return flipped

    def _moved(self, board: list[str], place: tuple[int, int], mover: str) -> list[str]:
        cells = [list(row) for row in board]
        for row, column in [place, *self._flipped(board, place, mover)]:
            cells[row][column] = mover
        return ["".join(row) for row in cells]

    def _after(self, data: Data) -> list[str]:
        board = data["board"]
        for mover, (row, column) in zip(cycle("BW"), data["moves"], strict=False):
            board = self._moved(board, (row - 1, column - 1), mover)
        return board

    def published(self, folder: Path) -> Iterator[Sample]:
        for path, _, solution in stored_samples(folder, "reversi_dataset"):
            # The published question shows the board as it is after the moves, so its "solution" is to copy it. The game
            # itself, and every stored solution, begins with the opening.
            data = {"board": self._opening(solution["board_size"]), "moves": solution["moves"]}
            yield Sample(path, data, solution["solution"].translate(str.maketrans("*01", "EBW")))


TASKS: list[Puzzle] = [
    PowersOfTwo(),
    LightPuzzles(),
    MatrixTransformation(),
    PatternRecognition(),
    Pooling(),
    Reversi(),
]
