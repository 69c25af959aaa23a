"""Grids, graphs and other things to look at: the data sets whose answer is a grid, a path or what one sees in it."""

import json
import re
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

from suites.base import Problem
from suites.gym.common import Entry, GymTask, same_number, same_word_or_number
from suites.parsers import number_grid, number_row, parse_number, unquote

Row = list[Any]
Matrix = list[Row]

# A grid of 30 x 30 as JSON, a number a line, takes 10,000 characters.
MAX_GRID = 12_000

# ---------------------------------------------------------------------------------------------------------------------
# Rules


def same_grid(problem: Problem, answer: str) -> bool:
    """The same rows of the same numbers: a row a line, or an array of arrays."""
    return number_grid(answer) == number_grid(problem.answer)


def same_row(problem: Problem, answer: str) -> bool:
    """The same numbers in the same order, with or without commas, brackets and line breaks; an empty row is "[]"."""
    return answer != "" and number_row(answer) == number_row(problem.answer)


def valid_colouring(problem: Problem, answer: str) -> bool:
    """A map of all vertices and nothing else to the given colors, with different ones at the two ends of every edge."""
    if answer.startswith("{") and answer.endswith("}"):
        answer = answer[1:-1]
    colors: dict[Fraction | None, Fraction | None] = {}
    for item in re.split(r"[,\n]", answer):
        if not item.strip():
            continue
        vertex, _, color = item.partition(":")
        number = parse_number(unquote(vertex))
        if number in colors:
            return False
        colors[number] = parse_number(unquote(color))
    data = problem.data
    return (
        colors.keys() == set(data["vertices"])
        and set(colors.values()) <= set(data["colors"])
        and all(colors[one] != colors[other] for one, other in data["edges"])
    )


_STEPS = {"right": (0, 1), "down": (1, 0), "left": (0, -1), "up": (-1, 0)}


def shortest_path(problem: Problem, answer: str) -> bool:
    """Any way from * to # that avoids X and has as few steps as the reference, or "infeasible" where there is none."""
    words = [word for word in re.split(r"(?:[\s,\[\]()\"'→]|->)+", answer.lower()) if word]
    reference = problem.answer.split()
    if reference == ["infeasible"]:
        return words == reference
    if len(words) != len(reference):
        return False
    cells = {(r, c): cell for r, row in enumerate(problem.data["matrix"]) for c, cell in enumerate(row)}
    r, c = next(place for place, cell in cells.items() if cell == "*")
    for word in words:
        if word not in _STEPS:
            return False
        r, c = r + _STEPS[word][0], c + _STEPS[word][1]
        if cells.get((r, c), "X") == "X":
            return False
    return cells[r, c] == "#"


# ---------------------------------------------------------------------------------------------------------------------
# Items whose reference answer is not the answer to their question, or not the only one


def _clockwise(matrix: Matrix) -> Matrix:
    return [list(row) for row in zip(*matrix[::-1], strict=True)]


def _upside_down(matrix: Matrix) -> Matrix:
    return matrix[::-1]


def _left_to_right(matrix: Matrix) -> Matrix:
    return [row[::-1] for row in matrix]


def _transposed(matrix: Matrix) -> Matrix:
    return [list(column) for column in zip(*matrix, strict=True)]


def _manipulated(matrix: Matrix, operations: list[dict[str, Any]], clockwise: bool, horizontal_is_rows: bool) -> Matrix:
    """The matrix after all operations, under one reading of the words whose meaning the question leaves open."""
    for operation in operations:
        transform = operation["transform"]
        if transform == "rotate":
            quarters = int(operation["degrees"]) // 90
            for _ in range(quarters if clockwise else -quarters % 4):
                matrix = _clockwise(matrix)
        elif transform in ("hmirror", "vmirror"):
            rows = (transform == "hmirror") == horizontal_is_rows
            matrix = _upside_down(matrix) if rows else _left_to_right(matrix)
        elif transform == "dmirror":
            matrix = _transposed(matrix)
        elif transform == "cmirror":
            matrix = _transposed(_upside_down(_left_to_right(matrix)))
        elif transform == "map":
            matrix = [[operation["to"] if cell == operation["from"] else cell for cell in row] for row in matrix]
        elif transform == "zero_divisible":
            matrix = [[0 if cell % operation["k"] == 0 else cell for cell in row] for row in matrix]
        elif transform == "crop":
            rows = matrix[operation["row_start"] - 1 : operation["row_end"]]
            matrix = [row[operation["col_start"] - 1 : operation["col_end"]] for row in rows]
        elif transform == "remove_every_nth_row":
            matrix = [row for i, row in enumerate(matrix, 1) if i % operation["n"]]
        elif transform == "remove_every_nth_col":
            matrix = [[cell for i, cell in enumerate(row, 1) if i % operation["n"]] for row in matrix]
        else:
            raise ValueError(f"manipulate_matrix: unknown operation {transform}")
    return matrix


def same_in_every_reading(entry: Entry) -> bool:
    """The question does not say which way a rotation turns, nor whether to mirror horizontally is to turn upside down
    (so the library) or left to right (so most programs): in half of the items that changes the result."""
    metadata = entry["metadata"]
    return all(
        _manipulated(metadata["matrix"], metadata["operations"], clockwise, horizontal_is_rows) == metadata["solution"]
        for clockwise in (True, False)
        for horizontal_is_rows in (True, False)
    )


_OPPOSITE = {"front": "back", "back": "front", "left": "right", "right": "left"}


def _rolled(cube: dict[str, str], side: str) -> dict[str, str]:
    """The cube after the quarter turn that brings this side to the top."""
    opposite = _OPPOSITE[side]
    return cube | {"top": cube[side], side: cube["bottom"], "bottom": cube[opposite], opposite: cube["top"]}


def same_over_either_edge(entry: Entry) -> bool:
    """The bottom can come to the top over the front or over a side, and the question does not say which: in one item
    of four that changes the color asked for."""
    metadata = entry["metadata"]
    cubes = [metadata["initial_state"]]
    for side in metadata["rotations"]:
        if side == "bottom":
            cubes = [_rolled(_rolled(cube, over), over) for cube in cubes for over in ("front", "right")]
        else:
            cubes = [_rolled(cube, side) for cube in cubes]
    return all(cube[metadata["target_side"]] == entry["answer"] for cube in cubes)


# Names given to girls and boys alike, among those that the library takes for one of them.
_EITHER = {"Kai", "Phoenix", "Rain", "River", "Sage", "Sky", "Winter"}


def says_who_they_are(entry: Entry) -> bool:
    """For a son-in-law of Mary's the library answers "mother-in-law": the relation the wrong way round. Its nieces and
    nephews have the other person's gender. And nothing but the name says whether Kai is a son or a daughter."""
    metadata = entry["metadata"]
    wrong = metadata["relationship"] in ("mother-in-law", "father-in-law", "niece", "nephew")
    return not wrong and metadata["person1"] not in _EITHER


def _moved(row: Row, by: int, wraps: bool) -> Row:
    moved = [0] * len(row)
    for i, cell in enumerate(row, by):
        if wraps or 0 <= i < len(row):
            moved[i % len(row)] = cell
    return moved


def _moved_to_dot(row: Row, most: int, dot: int) -> Row | None:
    """The other cells moved as one block towards the dot until they touch it, by `most` steps at most."""
    block = [i for i, cell in enumerate(row) if cell not in (0, dot)]
    if row.count(dot) != 1 or not block:
        return None
    place = row.index(dot)
    steps = place - 1 - block[-1] if block[-1] < place else place + 1 - block[0]
    steps = max(-most, min(most, steps))
    moved = _moved([0 if i == place else cell for i, cell in enumerate(row)], steps, wraps=True)
    moved[place] = dot
    return moved


_RIVALS: list[Callable[[Row], Row | None]] = [
    *(partial(_moved, by=by, wraps=wraps) for by in range(-4, 5) for wraps in (True, False)),
    *(partial(_moved_to_dot, most=most, dot=dot) for most in (1, 2, 3, 4, 100) for dot in (1, 2)),
]


def shows_one_move(entry: Entry) -> bool:
    """The three examples can leave open whether a block that leaves the row comes back on the other side, how far it
    may go towards a dot, or even that anything moves: two items in a hundred, with another answer for each rule.

    Only the rules of moving are compared, which are the ones that the library itself has in many variants."""
    metadata = entry["metadata"]
    test = metadata["test_example"]
    return all(
        rule(test["input"]) in (None, test["output"])
        for rule in _RIVALS
        if all(rule(example["input"]) == example["output"] for example in metadata["train_examples"])
    )


def confirmed_by_verifier(entry: Entry) -> bool:
    """For each generator the library has a second program of the same rule, the verifier, that it does not use. In
    four items of a hundred the two disagree over the answer or an example. One item in four hundred has examples that
    change nothing, and a test that does."""
    from reasoning_gym.arc.rearc_utils import verifiers

    verify = getattr(verifiers, f"verify_{entry['metadata']['task_id']}")
    boards = [*re.findall(r"put:\n([0-9 \n]+)", entry["question"]), entry["answer"]]
    grids = [tuple(tuple(map(int, line.split())) for line in board.strip().splitlines()) for board in boards]
    pairs = list(zip(grids[::2], grids[1::2], strict=True))
    try:
        confirmed = all(verify(given) == wanted for given, wanted in pairs)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, StopIteration, TypeError, ValueError):
        return False  # a few verifiers take, say, the smallest of no objects
    *examples, (given, wanted) = pairs
    return confirmed and (given == wanted or any(before != after for before, after in examples))


# ---------------------------------------------------------------------------------------------------------------------


def _graph(entry: Entry) -> dict[str, Any]:
    puzzle = entry["metadata"]["puzzle"]
    return {
        "vertices": puzzle["vertices"],
        "edges": [list(edge) for edge in puzzle["edges"]],
        "colors": puzzle["color_options"],
        "answer": json.dumps(entry["metadata"]["possible_answer"]),
    }


TASKS = [
    GymTask("arc_1d", same_row, sound=shows_one_move),
    GymTask("binary_matrix", same_grid),
    GymTask("color_cube_rotation", same_word_or_number, sound=same_over_either_edge),
    GymTask("course_schedule", same_word_or_number),
    GymTask("family_relationships", same_word_or_number, sound=says_who_they_are),
    GymTask("game_of_life", same_grid),
    GymTask("game_of_life_halting", same_word_or_number),
    GymTask("graph_color", valid_colouring, keep=_graph),
    GymTask("largest_island", same_number),
    GymTask("manipulate_matrix", same_grid, sound=same_in_every_reading),
    GymTask("rearc", same_grid, sound=confirmed_by_verifier, max_answer=MAX_GRID),
    GymTask("rotten_oranges", same_number),
    GymTask("shortest_path", shortest_path, keep=("matrix",)),
    GymTask("spiral_matrix", same_row),
]
