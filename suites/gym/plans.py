"""Moves: the data sets that ask for a sequence of them.

Any sequence is right that is legal move by move and ends where the question wants to be; none of these questions asks
for the shortest one. A move that is not possible makes the whole sequence wrong: the library's own games pass over it.
"""

import re
from collections import deque
from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import Any

from suites.base import Problem
from suites.gym.common import Entry, GymTask, dataset

# ---------------------------------------------------------------------------------------------------------------------
# Parsers

# Tower of Hanoi with seven disks takes 127 moves of 32 characters, and may take more.
MAX_HANOI = 20_000


def words(text: str) -> list[str]:
    """What stands between white space, commas, semicolons, square brackets and quotes."""
    return re.findall(r"[^\s,;\[\]\"']+", text)


# ---------------------------------------------------------------------------------------------------------------------
# Knights

Pieces = dict[str, str | None]
Board = dict[str, list[str]]  # for each square, where a knight can go from there
State = tuple[str, int, int]  # whose turn it is, and the squares of the white and of the black knights, a bit for each


def _knight_move(start: str, end: str) -> bool:
    return sorted(abs(ord(one) - ord(other)) for one, other in zip(start, end, strict=True)) == [1, 2]


def swap_plan(board: Board, pieces: Pieces, turn: str) -> list[tuple[str, str, str]] | None:
    """A shortest list of moves that swaps the knights, None where they cannot be swapped; always the same one."""
    squares = sorted(pieces)
    ends = [[j for j, end in enumerate(squares) if end in board[start]] for start in squares]
    whites, blacks = (sum(1 << i for i, square in enumerate(squares) if pieces[square] == color) for color in "wB")
    start: State = (turn, whites, blacks)
    came_from: dict[State, Any] = {start: None}
    queue = deque([start])
    while queue:
        state = queue.popleft()
        color, white, black = state
        if (white, black) == (blacks, whites):
            plan = []
            while came_from[state]:
                state, i, j = came_from[state]
                plan.append((state[0], squares[i], squares[j]))
            return plan[::-1]
        own, taken = white if color == "w" else black, white | black
        for i, reached in enumerate(ends):
            if own >> i & 1:
                for j in reached:
                    if not taken >> j & 1:
                        moved = own ^ (1 << i) ^ (1 << j)
                        after = ("B", moved, black) if color == "w" else ("w", white, moved)
                        if after not in came_from:
                            came_from[after] = (state, i, j)
                            queue.append(after)
    return None


def _board_as_shown(pieces: Pieces) -> Board:
    return {start: [end for end in pieces if _knight_move(start, end)] for start in pieces}


class KnightSwap(GymTask):
    """The library asks some four hundred times whether a board has a solution; ours takes a tenth of the time."""

    def make(self, seed: int) -> Entry | None:
        dataset(self.name).game_logic.solve_swap = swap_plan
        return super().make(seed)


def possible_as_shown(entry: Entry) -> bool:
    """For puzzles without a solution the library takes away a move that the board in the question still allows: one
    "No" in four is wrong."""
    metadata = entry["metadata"]
    pieces = metadata["pieces"]
    return (swap_plan(_board_as_shown(pieces), pieces, metadata["start_turn"]) is not None) == metadata["is_possible"]


def swaps_knights(problem: Problem, answer: str) -> bool:
    """Moves "color,from,to" by turns, each a knight's move of a piece of that color to an empty square of the board,
    after which each color stands where the other did; "No" where the knights cannot be swapped."""
    data = problem.data
    if not data["possible"]:
        return answer.casefold() == "no"
    given, before, turn = words(answer), data["pieces"], data["turn"]
    if len(given) % 3:
        return False
    pieces = dict(before)
    for color, start, end in zip(given[::3], map(str.upper, given[1::3]), map(str.upper, given[2::3]), strict=True):
        if color.casefold() != turn.casefold() or pieces.get(start) != turn:
            return False
        if end not in pieces or pieces[end] is not None or not _knight_move(start, end):
            return False
        pieces[start], pieces[end] = None, turn
        turn = "B" if turn == "w" else "w"
    swapped = {"w": "B", "B": "w", None: None}
    return all(pieces[square] == swapped[before[square]] for square in before)


def knights(entry: Entry) -> dict[str, Any]:
    pieces, turn = entry["metadata"]["pieces"], entry["metadata"]["start_turn"]
    plan = swap_plan(_board_as_shown(pieces), pieces, turn)
    moves = ", ".join(f'"{",".join(move)}"' for move in plan or [])
    return {"pieces": pieces, "turn": turn, "possible": bool(plan), "answer": f"[{moves}]" if plan else "No"}


# ---------------------------------------------------------------------------------------------------------------------
# Cars

SIDE = 6  # of the board
Cars = dict[str, list[tuple[int, int]]]


def _cars(board: list[str]) -> Cars:
    """The cells of each car, and of all walls under "x"."""
    cars: Cars = {}
    for cell in product(range(SIDE), repeat=2):
        cars.setdefault(board[cell[0]][cell[1]], []).append(cell)
    del cars["."]
    return cars


def _moved_car(cars: Cars, label: str, steps: int) -> list[tuple[int, int]] | None:
    """The cells of a car after one step forward (steps = 1) or back (-1), None where it cannot go.

    The exit is open for the red car, which may leave the board there."""
    cells = cars[label]
    horizontal = cells[0][0] == cells[1][0]
    moved = [(r, c + steps) if horizontal else (r + steps, c) for r, c in cells]
    others = {cell for other, taken in cars.items() if other != label for cell in taken}
    width = SIDE + len(cells) if label == "A" else SIDE
    free = all(0 <= r < SIDE and 0 <= c < width and (r, c) not in others for r, c in moved)
    return moved if free else None


def drives_out(problem: Problem, answer: str) -> bool:
    """Moves like F+1, each of them free for the whole way, after which the red car is at the exit on the right."""
    cars = _cars(problem.data["board"])
    for word in words(answer):
        move = re.fullmatch(r"([A-Za-z])([+-])([1-9])", word)
        label = move[1].upper() if move else ""
        if label not in cars:
            return False
        for _ in range(int(move[3])):
            moved = _moved_car(cars, label, 1 if move[2] == "+" else -1)
            if moved is None:
                return False
            cars[label] = moved
    return cars["A"][-1][1] >= SIDE - 1


def exit_plan(board: list[str]) -> str:
    """A plan with as few moves as there can be, always the same one."""
    cars = _cars(board)
    walls = sum(1 << (r * SIDE + c) for r, c in cars.pop("x", []))
    labels = sorted(cars)  # A, the red one, comes first
    strides = [1 if cars[label][0][0] == cars[label][1][0] else SIDE for label in labels]
    # For each car, by its place in row or column: which cells it covers. All its places lie one stride apart.
    covers = []
    for label, stride in zip(labels, strides, strict=True):
        r, c = cars[label][0]
        first = r * SIDE if stride == 1 else c
        covers.append(
            [
                sum(1 << (first + stride * (place + i)) for i in range(len(cars[label])))
                for place in range(SIDE - len(cars[label]) + 1)
            ]
        )
    start = tuple(
        cars[label][0][1] if stride == 1 else cars[label][0][0] for label, stride in zip(labels, strides, strict=True)
    )
    came_from: dict[tuple[int, ...], Any] = {start: None}
    queue = deque([start])
    while queue:
        state = queue.popleft()
        if state[0] == len(covers[0]) - 1:
            plan = []
            while came_from[state]:
                state, move = came_from[state]
                plan.append(move)
            return " ".join(plan[::-1])
        taken = walls + sum(cover[place] for cover, place in zip(covers, state, strict=True))
        for i, (cover, place) in enumerate(zip(covers, state, strict=True)):
            others = taken - cover[place]
            for direction in (1, -1):
                target = place + direction
                while 0 <= target < len(cover) and not cover[target] & others:
                    after = (*state[:i], target, *state[i + 1 :])
                    if after not in came_from:
                        came_from[after] = (state, f"{labels[i]}{target - place:+d}")
                        queue.append(after)
                    target += direction
    raise ValueError("rush_hour: a board without a solution")


def parking_lot(entry: Entry) -> dict[str, Any]:
    """The board of the question; the labels in the entry's metadata are others."""
    board = entry["question"].split("Board:\n")[1].split()
    return {"board": board, "answer": exit_plan(board)}


# ---------------------------------------------------------------------------------------------------------------------
# Boxes

_STEPS = {"L": (0, -1), "R": (0, 1), "U": (-1, 0), "D": (1, 0)}


def pushes_boxes_home(problem: Problem, answer: str) -> bool:
    """Letters L, R, U and D, each a step to a free cell or one that pushes a single box to a free cell; in the end
    every box is on a goal."""
    cells = {(r, c): cell for r, row in enumerate(problem.data["board"]) for c, cell in enumerate(row)}
    floor = {place for place, cell in cells.items() if cell != "+"}
    goals = {place for place, cell in cells.items() if cell in "X$%"}
    boxes = {place for place, cell in cells.items() if cell in "@$"}
    r, c = next(place for place, cell in cells.items() if cell in "*%")
    for letter in "".join(words(answer)).upper():
        if letter not in _STEPS:
            return False
        down, right = _STEPS[letter]
        r, c = r + down, c + right
        if (r, c) not in floor:
            return False
        if (r, c) in boxes:
            beyond = (r + down, c + right)
            if beyond not in floor or beyond in boxes:
                return False
            boxes.remove((r, c))
            boxes.add(beyond)
    return boxes == goals


def warehouse(entry: Entry) -> dict[str, Any]:
    return {"board": ["".join(line.split()) for line in entry["metadata"]["gamestr"].splitlines() if line.strip()]}


# ---------------------------------------------------------------------------------------------------------------------
# Disks


def moves_the_tower(problem: Problem, answer: str) -> bool:
    """A line "Move disk 1 from Peg 2 to Peg 3" for each move of a top disk to a peg without a smaller one, after which
    all disks are on the target peg."""
    data = problem.data
    pegs: dict[int, list[int]] = {peg: [] for peg in range(1, data["num_pegs"] + 1)}
    pegs[data["start_peg"]] = list(range(data["num_disks"], 0, -1))
    for line in filter(None, map(str.strip, answer.splitlines())):
        move = re.fullmatch(r"move disk ([1-9]) from peg ([1-9]) to peg ([1-9])[.,;]?", " ".join(line.split()).lower())
        if move is None:
            return False
        disk, start, end = map(int, move.groups())
        if start not in pegs or end not in pegs or start == end:
            return False
        if pegs[start][-1:] != [disk] or any(other < disk for other in pegs[end]):
            return False
        pegs[end].append(pegs[start].pop())
    return len(pegs[data["target_peg"]]) == data["num_disks"]


# ---------------------------------------------------------------------------------------------------------------------
# Rubik's cube

Vector = tuple[int, int, int]  # x to the right, y up, z to the front; from -1 to 1
Facelet = tuple[Vector, Vector]  # where its cubie is, and where it faces


def _quarter(axis: int, vector: Vector) -> Vector:
    """The vector after a quarter turn, clockwise as seen from the right, from above, from the front."""
    x, y, z = vector
    return [(x, z, -y), (-z, y, x), (y, -x, z)][axis]


def _facelets() -> Iterator[Facelet]:
    """All facelets as the net in the question shows them, row by row: top, the ring left front right back, bottom."""
    low_to_high = (-1, 0, 1)
    for z in low_to_high:
        yield from (((x, 1, z), (0, 1, 0)) for x in low_to_high)
    for y in low_to_high[::-1]:
        yield from (((-1, y, z), (-1, 0, 0)) for z in low_to_high)
        yield from (((x, y, 1), (0, 0, 1)) for x in low_to_high)
        yield from (((1, y, z), (1, 0, 0)) for z in low_to_high[::-1])
        yield from (((x, y, -1), (0, 0, -1)) for x in low_to_high[::-1])
    for z in low_to_high[::-1]:
        yield from (((x, -1, z), (0, -1, 0)) for x in low_to_high)


# Singmaster's letters: axis, layers along it, quarter turns. Small letters turn two layers, x, y and z the whole cube.
_TURNS = {
    "R": (0, (1,), 1),
    "L": (0, (-1,), 3),
    "M": (0, (0,), 3),
    "r": (0, (0, 1), 1),
    "l": (0, (-1, 0), 3),
    "x": (0, (-1, 0, 1), 1),
    "U": (1, (1,), 1),
    "D": (1, (-1,), 3),
    "E": (1, (0,), 3),
    "u": (1, (0, 1), 1),
    "d": (1, (-1, 0), 3),
    "y": (1, (-1, 0, 1), 1),
    "F": (2, (1,), 1),
    "B": (2, (-1,), 3),
    "S": (2, (0,), 1),
    "f": (2, (0, 1), 1),
    "b": (2, (-1, 0), 3),
    "z": (2, (-1, 0, 1), 1),
}


@cache
def _sources(letter: str, prime: bool) -> list[int]:
    """For each facelet of the net, which one the turn brings there."""
    axis, layers, quarters = _TURNS[letter]
    facelets = list(_facelets())
    sources = list(range(len(facelets)))
    for i, (position, normal) in enumerate(facelets):
        if position[axis] in layers:
            for _ in range(4 - quarters if prime else quarters):
                position, normal = _quarter(axis, position), _quarter(axis, normal)
            sources[facelets.index((position, normal))] = i
    return sources


def turned(net: str, moves: str) -> str | None:
    """The net after the moves, None if one of them is none."""
    moves = re.sub(r"[\s,\[\]()\"]", "", moves).replace("’", "'").replace("′", "'")
    if not re.fullmatch(r"(?:[RLMrlxUDEudyFBSfbz]'?)*", moves):
        return None
    for letter, prime in re.findall(r"(.)('?)", moves):
        net = "".join(net[i] for i in _sources(letter, bool(prime)))
    return net


def solves_the_cube(problem: Problem, answer: str) -> bool:
    """Turns in Singmaster notation, none of them doubled (U2), after which every side has one color."""
    net = turned(problem.data["net"], answer)
    if net is None:
        return False
    sides: dict[Vector, set[str]] = {}
    for (_, normal), color in zip(_facelets(), net, strict=True):
        sides.setdefault(normal, set()).add(color)
    return all(len(colors) == 1 for colors in sides.values())


def cube(entry: Entry) -> dict[str, Any]:
    rows = re.findall(r"^[WYROGB ]+$", entry["question"], re.MULTILINE)
    moves = entry["metadata"]["scramble_moves"].split()
    back = [move[:-1] if move.endswith("'") else move + "'" for move in reversed(moves)]
    return {"net": "".join("".join(rows).split()), "answer": " ".join(back)}


def scrambled(entry: Entry) -> bool:
    """Random turns can undo each other: two cubes in a thousand are solved already."""
    data = cube(entry)
    return not solves_the_cube(Problem("", 0, "", "", data), "")


# ---------------------------------------------------------------------------------------------------------------------


TASKS = [
    KnightSwap("knight_swap", swaps_knights, sound=possible_as_shown, keep=knights),
    GymTask("rubiks_cube", solves_the_cube, sound=scrambled, keep=cube),
    GymTask("rush_hour", drives_out, keep=parking_lot),
    GymTask("sokoban", pushes_boxes_home, keep=warehouse),
    GymTask(
        "tower_of_hanoi",
        moves_the_tower,
        keep=("num_disks", "num_pegs", "start_peg", "target_peg"),
        max_answer=MAX_HANOI,
        few=True,
    ),
]
