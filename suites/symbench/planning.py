"""Plans of moves: lifters, arms on a grid, and stacks of blocks."""

import json
import re
import string
from collections import Counter
from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import chain, islice, permutations
from pathlib import Path
from random import Random

from suites.symbench.common import Data, Puzzle, Sample

# ---------------------------------------------------------------------------------------------------------------------
# Plans as texts

_QUOTES = str.maketrans(dict.fromkeys("\"'`*", " "))
_SQUARE = str.maketrans("(){}", "[][]")
_LABEL = re.compile(r"(?:step\s?|^(?=[0-9]+[.:)]\s))([0-9]{1,4})\s?[.:)]?", re.MULTILINE)
_LAYOUT = re.compile(r"[#\s,;.()\[\]{}]*")


def steps_of(plan: str, action: re.Pattern[str]) -> list[list[re.Match[str]]] | None:
    """The actions of each step; None if there is anything besides actions and layout.

    A step follows its label ("Step 1:" or, on a new line, "1."), or is a list in brackets, or a line. The pattern meets
    lower case, no quotes, and never two white spaces in a row; it must not match "#".
    """
    lines = (" ".join(line.split()) for line in plan.lower().translate(_QUOTES).splitlines())
    text = "\n".join(line for line in lines if line)
    outline = action.sub("#", text)  # a mark for each action, and what is between them
    if "#" in text or not _LAYOUT.fullmatch(_LABEL.sub("", outline)):
        return None
    before, *labelled = _LABEL.split(outline)
    if labelled:
        numbers, steps = labelled[::2], labelled[1::2]
        if "#" in before or numbers != [str(i + 1) for i in range(len(steps))]:
            return None
    elif re.search(r"[()\[\]{}]", outline):
        brackets = re.sub(r"[\s,;.]", "", outline.translate(_SQUARE))
        steps = re.findall(r"\[#*\]", brackets)
        if brackets not in ("".join(steps), f"[{''.join(steps)}]"):
            return None
    else:
        steps = outline.splitlines()
    actions = action.finditer(text)
    return [list(islice(actions, step.count("#"))) for step in steps]


def plan_text(steps: list[list[str]]) -> str:
    """The plan, a labelled line for each step."""
    return "\n".join(f"Step {number}: {', '.join(actions)}" for number, actions in enumerate(steps, 1))


# ---------------------------------------------------------------------------------------------------------------------


class BoxLift(Puzzle):
    """Who lifts which boxes in each of a limited number of steps, where several can lift a heavy box together."""

    name, kind = "BoxLift", "simulated plan"
    # Boxes, lifters, heaviest box possible, and the range of the capacities.
    levels = ((10, 3, 100, 40, 80), (15, 4, 200, 30, 120), (20, 5, 300, 40, 160), (25, 6, 400, 50, 200))
    max_answer = 8000

    _LIFT = re.compile(
        r"(?P<open>[\[(]\s?)?(?<![0-9.-])(?P<weight>[0-9]{1,4})\s?[,:]\s?"
        r"[\[(]\s?(?P<team>[0-9]{1,2}(?:(?:\s?,\s?|\s)[0-9]{1,2})*)\s?,?\s?[\])](?(open)\s?[\])])"
    )

    def make(self, random: Random, level: tuple[int, int, int, int, int]) -> Data:
        boxes, lifters, heaviest, weakest, strongest = level
        while True:
            weights = [random.randint(heaviest // 10, heaviest) for _ in range(boxes)]
            capacities = [random.randint(weakest, strongest) for _ in range(lifters)]
            if sum(capacities) >= max(weights):
                return self._data(weights, capacities)

    def _data(self, weights: list[int], capacities: list[int]) -> Data:
        # As published, the limit is what the simple plan needs.
        return {"boxes": weights, "lifters": capacities, "steps": len(self._plan(weights, capacities))}

    @staticmethod
    def _plan(weights: list[int], capacities: list[int]) -> list[list[tuple[int, list[int]]]]:
        """In each step, the boxes get their turns from the heaviest to the lightest: each is lifted by the first of the
        free lifters, as many as it takes, or waits if all of them are too weak."""
        plan, waiting = [], sorted(weights, reverse=True)
        while waiting:
            step, left, free = [], [], list(range(len(capacities)))
            for weight in waiting:
                if sum(capacities[lifter] for lifter in free) < weight:
                    left.append(weight)
                    continue
                team: list[int] = []
                while sum(capacities[lifter] for lifter in team) < weight:
                    team.append(free.pop(0))
                step.append((weight, team))
            plan.append(step)
            waiting = left
        return plan

    def ask(self, data: Data) -> str:
        lifters = "\n".join(f"- lifter {number}: {capacity}" for number, capacity in enumerate(data["lifters"]))
        return (
            f"Boxes of these {len(data['boxes'])} weights are waiting to be lifted:\n\n"
            f"{', '.join(map(str, data['boxes']))}\n\n"
            f"There are {len(data['lifters'])} lifters with these capacities, numbered from 0:\n\n{lifters}\n\n"
            "The work is done in steps. In a step, a box is lifted by one lifter or by several together, whose "
            "capacities must add up to at least its weight. Within a step, each lifter takes part in lifting at most "
            "one box. Any number of boxes may be lifted in a step, and lifters may be idle. Each box must be lifted "
            "exactly once; where weights are equal, each of these boxes must be lifted.\n\n"
            f"Plan the work in at most {data['steps']} steps. Return your answer in the format of a line for each "
            "step, with each box lifted in it as (weight, [numbers of its lifters]), for example:\n\n"
            "<<<Step 1: (50, [0, 2]), (30, [1])\nStep 2: (20, [0])>>>\n\n"
            "In step 1 of this example, lifters 0 and 2 lift a box of weight 50, and lifter 1 one of weight 30."
        )

    def check(self, data: Data, answer: str) -> bool:
        steps = steps_of(answer, self._LIFT)
        if steps is None or len(steps) > data["steps"]:
            return False
        waiting = Counter(data["boxes"])
        for step in steps:
            free = set(range(len(data["lifters"])))
            for lift in step:
                weight, team = int(lift["weight"]), [int(number) for number in re.findall("[0-9]+", lift["team"])]
                if not waiting[weight] or not free.issuperset(team) or len(set(team)) < len(team):
                    return False
                if sum(data["lifters"][lifter] for lifter in team) < weight:
                    return False
                waiting[weight] -= 1
                free.difference_update(team)
        return waiting.total() == 0

    def solve(self, data: Data) -> str:
        plan = self._plan(data["boxes"], data["lifters"])
        return plan_text([[f"({weight}, {team})" for weight, team in step] for step in plan])

    def published(self, folder: Path) -> Iterator[Sample]:
        for path in sorted(folder.glob("BoxLift_dataset/*/*/BoxLift.json")):
            stored = json.loads(path.read_text(encoding="utf-8"))
            boxes, lifters = stored["boxes"], stored["lifters"]
            if max(boxes) > sum(lifters):
                raise ValueError(f"{path}: all lifters together are too weak")
            yield Sample(str(path.parent.relative_to(folder)), self._data(boxes, lifters), None)


_COLOURS = ("blue", "red", "green", "purple", "orange")
_WAYS = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}  # by how many rows and columns


class BoxNet(Puzzle):
    """How arms, one in each cell of a grid, bring boxes onto targets of the same colour."""

    name, kind = "BoxNet", "simulated plan"
    levels = ((1, 2), (2, 2), (2, 4), (4, 4), (4, 8))  # rows and columns
    max_answer = 20_000

    _ACTION = re.compile(
        r"(?P<open>[\[(]\s?)?(?P<cell>[\[(]\s?)?(?<![0-9.-])(?P<row>[0-9]{1,2})(?:\s?,\s?|\s)(?P<column>[0-9]{1,2})"
        r"(?(cell)\s?[\])])(?:\s?[,:]\s?|\s)(?P<colour>[a-z]+)(?:\s?,\s?|\s)(?P<act>up|down|left|right|target)"
        r"(?(open)\s?[\])])"
    )

    def make(self, random: Random, level: tuple[int, int]) -> Data:
        rows, columns = level
        data: Data = {"rows": rows, "columns": columns, "boxes": [], "targets": []}
        for colour in _COLOURS:
            for _ in range(random.randint(1, 3)):
                for things in (data["boxes"], data["targets"]):
                    things.append([colour, random.randrange(rows), random.randrange(columns)])
        return data

    def ask(self, data: Data) -> str:
        rows, columns = data["rows"], data["columns"]
        contents: dict[tuple[int, int], list[str]] = {}
        for kind in ("box", "target"):
            for colour, row, column in data["boxes" if kind == "box" else "targets"]:
                contents.setdefault((row, column), []).append(f"{colour} {kind}")
        cells = "\n".join(f"- {cell}: {', '.join(things)}" for cell, things in sorted(contents.items()))
        return (
            f"Coloured boxes and coloured targets lie in the cells of a grid of {rows} row{'s' * (rows > 1)} and "
            f"{columns} columns. (row, column) names a cell; rows are counted from 0 at the top, columns from 0 at the "
            "left. A cell can hold any number of boxes and targets. These cells hold something:\n\n"
            f"{cells}\n\n"
            "There are as many boxes as targets of each colour. In each cell stands an arm. In each step of a plan, "
            "each arm does nothing or one of these:\n\n"
            "- It moves one box from its own cell to the neighbouring cell above, below, left or right of it: up, "
            "down, left or right. No box may leave the grid.\n"
            "- It puts one box in its own cell onto a target of the same colour in its own cell: target. The box and "
            "the target are gone then.\n\n"
            "All arms act at the same time, on what lies in their cells when the step begins. So a box that comes into "
            "a cell in a step cannot be used by the arm there before the next step.\n\n"
            "Find a plan after which no box is left. Every action in it must be possible; there may be any number of "
            "steps. Return your answer in the format of a line for each step, with each action as (row, column, colour "
            "of the box, action), where row and column name the cell of the arm, for example:\n\n"
            "<<<Step 1: (0, 0, blue, right), (0, 1, red, target)\nStep 2: (0, 1, blue, target)>>>"
        )

    def check(self, data: Data, answer: str) -> bool:
        steps = steps_of(answer, self._ACTION)
        if steps is None:
            return False
        boxes = Counter((row, column, colour) for colour, row, column in data["boxes"])
        targets = Counter((row, column, colour) for colour, row, column in data["targets"])
        for step in steps:
            at_first, acted = boxes.copy(), set()
            for action in step:
                row, column, colour = int(action["row"]), int(action["column"]), action["colour"]
                if (row, column) in acted or not at_first[row, column, colour]:
                    return False
                acted.add((row, column))
                boxes[row, column, colour] -= 1
                if action["act"] == "target":
                    if not targets[row, column, colour]:
                        return False
                    targets[row, column, colour] -= 1
                else:
                    down, right = _WAYS[action["act"]]
                    row, column = row + down, column + right
                    if not (0 <= row < data["rows"] and 0 <= column < data["columns"]):
                        return False
                    boxes[row, column, colour] += 1
        return boxes.total() == 0

    def solve(self, data: Data) -> str:
        """Each box gets the nearest target that is still free; in each step, each box moves on if its arm is idle."""
        free, routes = [*data["targets"]], []
        for colour, row, column in data["boxes"]:
            fitting = (target for target in free if target[0] == colour)
            target = min(fitting, key=lambda target: abs(target[1] - row) + abs(target[2] - column))
            free.remove(target)
            routes.append(self._route(colour, row, column, target[1] - row, target[2] - column))
        steps = []
        while routes:
            step: dict[tuple[int, int], tuple[int, int, str, str]] = {}
            for route in routes:
                if route[0][:2] not in step:
                    action = route.pop(0)
                    step[action[:2]] = action
            steps.append([f"({row}, {column}, {colour}, {act})" for row, column, colour, act in step.values()])
            routes = [route for route in routes if route]
        return plan_text(steps)

    def _route(self, colour: str, row: int, column: int, down: int, right: int) -> list[tuple[int, int, str, str]]:
        """The actions that bring a box so far down and to the right, and onto its target."""
        route = []
        for act in ["down"] * down + ["up"] * -down + ["right"] * right + ["left"] * -right:
            route.append((row, column, colour, act))
            row, column = row + _WAYS[act][0], column + _WAYS[act][1]
        return [*route, (row, column, colour, "target")]

    def published(self, folder: Path) -> Iterator[Sample]:
        for path in sorted(folder.glob("BoxNet1_dataset/*/*/*.json")):
            data: Data = {"rows": 0, "columns": 0, "boxes": [], "targets": []}
            for square, things in json.loads(path.read_text(encoding="utf-8")).items():
                row, column = (int(float(middle)) for middle in square.split("_"))
                data["rows"], data["columns"] = max(data["rows"], row + 1), max(data["columns"], column + 1)
                for thing in things:
                    kind, colour = thing.split("_")
                    data[{"box": "boxes", "target": "targets"}[kind]].append([colour, row, column])
            if sorted(box[0] for box in data["boxes"]) != sorted(target[0] for target in data["targets"]):
                raise ValueError(f"{path}: not as many boxes as targets of each colour")
            yield Sample(str(path.parent.relative_to(folder)), data, None)


class Blocksworld(Puzzle):
    """How to rebuild stacks of blocks by moving one block at a time from the top of a stack to that of another."""

    name, kind = "Blocksworld", "simulated plan"
    # Blocks, stacks, and how many of the stacks may be used in the end.
    levels = tuple(
        (blocks, stacks, used) for blocks in (2, 3, 4) for stacks in (5, 4, 3) for used in (4, 3, 2) if used <= stacks
    )

    _MOVE = re.compile(
        r"move\s(?:block\s)?(?P<block>[a-z])\sfrom\s(?:stack\s?)?(?P<source>[0-9]{1,2})"
        r"\sto\s(?:stack\s?)?(?P<target>[0-9]{1,2})"
    )

    def make(self, random: Random, level: tuple[int, int, int]) -> Data:
        blocks, stacks, used = level
        start = goal = self._stacks(random, blocks, stacks, stacks)
        while goal == start:
            goal = self._stacks(random, blocks, stacks, used)
        return {"start": start, "goal": goal}

    @staticmethod
    def _stacks(random: Random, blocks: int, stacks: int, used: int) -> list[list[str]]:
        """So many blocks in random order on the first few of the stacks."""
        filled: list[list[str]] = [[] for _ in range(stacks)]
        for block in random.sample(string.ascii_uppercase[:blocks], blocks):
            random.choice(filled[:used]).append(block)
        return filled

    def ask(self, data: Data) -> str:
        start, goal = (
            "\n".join(f"- stack {number}: {' '.join(stack) or 'empty'}" for number, stack in enumerate(stacks, 1))
            for stacks in (data["start"], data["goal"])
        )
        return (
            f"Blocks lie on {len(data['start'])} stacks. Each stack is written from its bottom block to its top block, "
            f"so that the last one is on top. At the start:\n\n{start}\n\nIn the end it must be exactly so:\n\n{goal}"
            "\n\nA move takes the top block of a stack and puts it on top of another stack, which may be empty and can "
            "be of any height. There is no other place for a block. Find moves that lead from the start to the end; "
            "there may be any number of them. Return your answer in the format of a line for each move, in their "
            "order, for example:\n\n<<<Move X from 1 to 3\nMove Y from 2 to 1>>>"
        )

    def check(self, data: Data, answer: str) -> bool:
        steps = steps_of(answer, self._MOVE)
        if steps is None:
            return False
        stacks = {str(number): [*stack] for number, stack in enumerate(data["start"], 1)}
        for move in (move for step in steps for move in step):
            source, target = move["source"], move["target"]
            if source == target or source not in stacks or target not in stacks:
                return False
            if stacks[source][-1:] != [move["block"].upper()]:
                return False
            stacks[target].append(stacks[source].pop())
        return [*stacks.values()] == data["goal"]

    def solve(self, data: Data) -> str:
        """A shortest plan, by the A* algorithm. A block that is not in its place takes a move at least, and two if it
        is in its own stack, which it must leave for a while."""
        start, goal = (["".join(stack) for stack in stacks] for stacks in (data["start"], data["goal"]))

        def moves_left(stacks: list[str]) -> int:
            number = 0
            for stack, end in zip(stacks, goal, strict=True):
                in_place = next((i for i in range(len(stack)) if stack[i] != end[i : i + 1]), len(stack))
                number += sum(1 + (block in end) for block in stack[in_place:])
            return number

        left = moves_left(start)
        queue: list[tuple[int, int, list[str], list[str]]] = [(left, left, [], start)]
        seen = set()
        while True:
            _, _, plan, stacks = heappop(queue)
            if stacks == goal:
                return "\n".join(plan)
            if tuple(stacks) in seen:
                continue
            seen.add(tuple(stacks))
            for source, target in permutations(range(len(stacks)), 2):
                if stacks[source]:
                    block, after = stacks[source][-1], [*stacks]
                    after[source], after[target] = stacks[source][:-1], stacks[target] + block
                    left = moves_left(after)
                    move = f"Move {block} from {source + 1} to {target + 1}"
                    heappush(queue, (len(plan) + 1 + left, left, [*plan, move], after))

    def published(self, folder: Path) -> Iterator[Sample]:
        for path in sorted(folder.glob("Blocksworld_dataset/*/blocksworld_task.txt")):
            start, goal = (
                [blocks.split() for blocks in re.findall("^stack[0-9]+:(.*)$", part, re.MULTILINE)]
                for part in path.read_text(encoding="utf-8").split("Goal State:")
            )
            goal += [[] for _ in start[len(goal) :]]
            if len(goal) != len(start) or sorted(chain(*goal)) != sorted(chain(*start)) or goal == start:
                raise ValueError(f"{path}: not two arrangements of the same blocks on the same stacks")
            yield Sample(str(path.parent.relative_to(folder)), {"start": start, "goal": goal}, None)


TASKS = [BoxLift(), BoxNet(), Blocksworld()]
