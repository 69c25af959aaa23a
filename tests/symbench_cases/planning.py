"""Plans of moves: lifters, arms on a grid, and stacks of blocks."""

import json
import re
from collections import Counter, deque
from itertools import chain, pairwise
from random import Random
from typing import Any

from suites.base import Problem
from tests.symbench_cases import Case

Lift = tuple[int, list[int]]
Action = tuple[int, int, str, str]
Move = tuple[str, int, int]


def written(steps: list[list[Any]]) -> str:
    """A line for each step, as the questions ask for."""
    lines = [", ".join(str(action).replace("'", "") for action in step) for step in steps]
    return "\n".join(f"Step {i}: {line}" for i, line in enumerate(lines, 1))


def layouts(steps: list[list[Any]]) -> list[str]:
    """Other ways to write the same steps."""
    text = written(steps)
    in_lists = [[list(action) for action in step] for step in steps]
    return [
        text,
        text.upper() + ".",
        f"**{text}**",
        f"\n{text}\n".replace(", ", " , ").replace("(", "( "),
        text.replace(" ", ""),
        text.replace("\n", "; "),
        text.replace("(", "[").replace(")", "]"),
        re.sub(r"Step (\d+): (.*)", r"Step \1: [\2]", text),
        re.sub(r"Step (\d+): (.*)", r"\1. \2", text),
        re.sub(r"Step (\d+): ", r"**Step \1**\n", text).replace("), (", "),\n("),
        "\n".join(str(step) for step in steps),
        str(steps),
        str(tuple(tuple(step) for step in steps)),
        json.dumps(steps, indent=1),
        json.dumps({f"Step {i}": step for i, step in enumerate(in_lists, 1)}),
        "\n".join(line.partition(": ")[2] for line in text.splitlines()),
    ]


def layouts_wrong(steps: list[list[Any]]) -> list[str]:
    """Layouts that leave open what is meant, or say more than the plan."""
    text = written(steps)
    first, *others = chain(*steps)
    shifted = iter([*others, first])
    return [
        f"{written([[first]])[8:]}\n{written([[next(shifted) for _ in step] for step in steps])}",
        f"[{', '.join(map(str, [*steps[0], *steps]))}]",
        f"{steps}]",
        f"{text}, #",
        text.replace("(", "(.", 1),
        text.replace("Step 1:", "Step 2:"),
        f"{text}\nStep {len(steps) + 2}:",
        f"{text}\n(and so on)",
        f"Plan: {text}",
        f"{text}\n{text}",
        text.replace("(", "(-", 1),
        text.replace("(", "(0.", 1),
        text.replace(",", "+", 1),
        text.replace("(", "(#", 1),
        written([*steps[:-1], steps[-1][:-1]]),
    ]


# ---------------------------------------------------------------------------------------------------------------------


def lifts_of(problem: Problem) -> list[list[Lift]]:
    """The plan of the solver."""
    return [
        [(int(weight), json.loads(team)) for weight, team in re.findall(r"\((\d+), (\[.*?\])\)", line)]
        for line in problem.answer.splitlines()
    ]


def packed(boxes: list[int], capacities: list[int], random: Random) -> list[list[Lift]]:
    """A plan where the free lifters with the least power to spare lift a box, in no particular order of the boxes."""
    plan, waiting = [], sorted(boxes, key=lambda weight: weight + random.randint(0, 30))
    while waiting:
        step: list[Lift] = []
        free = list(range(len(capacities)))
        for weight in reversed(waiting):
            teams = [[i for i in free if chosen >> i & 1] for chosen in range(1, 1 << len(capacities))]
            strong = [team for team in teams if sum(capacities[i] for i in team) >= weight]
            if strong:
                team = min(strong, key=lambda team: sum(capacities[i] for i in team))
                step.append((weight, random.sample(team, len(team))))
                free = [i for i in free if i not in team]
        for weight, _ in step:
            waiting.remove(weight)
        plan.append(step)
    return plan


def lift_right(problem: Problem, random: Random) -> list[str]:
    plan, capacities, limit = lifts_of(problem), problem.data["lifters"], problem.data["steps"]
    shuffled = [
        [(w, team[::-1]) for w, team in random.sample(step, len(step))] for step in random.sample(plan, len(plan))
    ]
    busy = {lifter for _, team in plan[-1] for lifter in team}
    (weight, team), *others = plan[-1]
    helped = [*plan[:-1], [(weight, [*team, *(i for i in range(len(capacities)) if i not in busy)]), *others]]
    tighter = packed(problem.data["boxes"], capacities, random)
    answers = [*layouts(plan), *layouts(helped), written(shuffled), written(helped)]
    if len(tighter) <= limit:
        answers += [written(tighter), written(tighter + [[]] * (limit - len(tighter)))]
    return [*answers, "\n".join(str(dict(step)) for step in plan)] if distinct(plan) else answers


def distinct(plan: list[list[Lift]]) -> bool:
    """Whether the weights are keys of a step."""
    return all(len(dict(step)) == len(step) for step in plan)


def lift_wrong(problem: Problem, random: Random) -> list[str]:
    plan, boxes, capacities = lifts_of(problem), problem.data["boxes"], problem.data["lifters"]
    at, of = random.choice([(i, j) for i, step in enumerate(plan) for j in range(len(step))])
    weight, team = plan[at][of]
    number = len(capacities)

    def instead(*lifts: tuple[int, list[int]]) -> list[list[Lift]]:
        changed = [[*step] for step in plan]
        changed[at][of : of + 1] = lifts
        return changed

    plans = [
        plan[:-1],
        instead(),
        instead((weight, team), (weight, team)),
        instead((weight, team[:-1])),  # the last of the team was needed
        instead((weight, [*team[:-1], number])),
        instead((weight, [*team[:-1], -1])),
        instead((weight, [*team, team[0]])),
        instead((weight, [*team, number])),
        [*plan, [(weight, team)]],
        [step + [[], [(weight, team)]][i == at] for i, step in enumerate(plan)],
        [[*chain(*plan)]],
    ]
    # Whatever the teams, these do not lift what is to be lifted.
    for other in (weight + 1, weight - 1, random.choice(boxes), boxes.index(weight)):
        if other != weight:
            plans.append(instead((other, team)))
    for step in plan:
        teams = [lifter for _, team in step for lifter in team]
        if len(teams) < number and len(step) > 1:  # one lifter twice, though another is idle
            (first, strong), (second, _), *others = step
            plans.append(
                [[(first, strong), (second, [*strong]), *others] if other is step else other for other in plan]
            )
    if any(number - 1 in team for step in plan for _, team in step):
        plans.append([[(weight, [i + 1 for i in team]) for weight, team in step] for step in plan])
    one_by_one = [[lift] for step in plan for lift in step]
    if len(one_by_one) > problem.data["steps"]:
        plans.append(one_by_one)
        plans += [[*plan, []]] if len(plan) == problem.data["steps"] else []
    return [*layouts_wrong(plan), *map(written, plans)]


# ---------------------------------------------------------------------------------------------------------------------

WAYS = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
OPPOSITE = {"up": "down", "down": "up", "left": "right", "right": "left"}


def actions_of(problem: Problem) -> list[list[Action]]:
    """The plan of the solver."""
    return [
        [
            (int(row), int(column), colour, act)
            for row, column, colour, act in re.findall(r"(\d+), (\d+), (\w+), (\w+)", line)
        ]
        for line in problem.answer.splitlines()
    ]


def on_foot(problem: Problem, targets: list[Any], random: Random) -> list[Action]:
    """One box after the other, each to any target of its colour, first along its row, and some of them by a detour."""
    actions = []
    targets = random.sample(targets, len(targets))
    for colour, row, column in random.sample(problem.data["boxes"], len(problem.data["boxes"])):
        target = next(target for target in targets if target[0] == colour)
        targets.remove(target)
        acts = ["left"] * (column - target[2]) + ["right"] * (target[2] - column)
        acts += ["up"] * (row - target[1]) + ["down"] * (target[1] - row)
        detour = random.choice([way for way in WAYS if inside(problem, row + WAYS[way][0], column + WAYS[way][1])])
        for act in [detour, OPPOSITE[detour]] * random.randint(0, 1) + acts:
            actions.append((row, column, colour, act))
            row, column = row + WAYS[act][0], column + WAYS[act][1]
        actions.append((row, column, colour, "target"))
    return actions


def inside(problem: Problem, row: int, column: int) -> bool:
    return 0 <= row < problem.data["rows"] and 0 <= column < problem.data["columns"]


def net_right(problem: Problem, random: Random) -> list[str]:
    plan = actions_of(problem)
    own = [[action] for action in on_foot(problem, problem.data["targets"], random)]
    with_cells = [[((row, column), colour, act) for row, column, colour, act in step] for step in plan]
    return [
        *layouts(plan),
        written([random.sample(step, len(step)) for step in plan]),
        written([[action] for step in plan for action in step]),
        written([[], *own, []]),
        str(own),
        str(with_cells),
        written(with_cells),
        written(plan).replace("(", "").replace(")", ""),
    ]


def net_wrong(problem: Problem, random: Random) -> list[str]:
    plan, data = actions_of(problem), problem.data
    at, of = random.choice([(i, j) for i, step in enumerate(plan) for j in range(len(step))])
    row, column, colour, act = plan[at][of]

    def instead(*actions: Action) -> list[list[Action]]:
        changed = [[*step] for step in plan]
        changed[at][of : of + 1] = actions
        return changed

    # The ways of the boxes of a colour add up to the difference between its targets and its boxes. So no action can be
    # missing, be another way, or be of another colour.
    plans = [
        plan[:-1],
        instead(),
        instead((row, column, colour, act), (row, column, colour, act)),
        [*plan, [plan[-1][-1]]],
        *(instead((row, column, colour, other)) for other in ("target", *WAYS) if other != act),
        *(instead((row, column, other, act)) for other in ("blue", "red", "green", "pink") if other != colour),
        instead((row + data["rows"], column, colour, act)),
        instead((row, column + 10, colour, act)),
    ]
    boxes = Counter((row, column, colour) for colour, row, column in data["boxes"])
    targets = Counter((row, column, colour) for colour, row, column in data["targets"])
    if boxes != targets:  # all boxes as they lie
        plans.append([[(row, column, colour, "target")] for colour, row, column in data["boxes"]])
    for row, column, colour in boxes:  # an action that cannot be done, and would do no harm if passed over
        for way, (down, right) in WAYS.items():
            if not inside(problem, row + down, column + right):
                out, back = (row, column, colour, way), (row + down, column + right, colour, OPPOSITE[way])
                plans += [[[out], *plan], [[out], [back], *plan]]
        plans += [[[(row, column, colour, "target")], *plan]] if (row, column, colour) not in targets else []
    for row, column, colour in targets:
        if (row, column, colour) not in boxes:
            plans += [[[(row, column, colour, act)], *plan] for act in ("target", *WAYS)]
    for this, following in pairwise(plan):  # an arm that acts twice in a step
        if {action[:2] for action in this} & {action[:2] for action in following}:
            plans.append([[*this, *following] if step is this else step for step in plan if step is not following])
    heaped = [next(first for first in data["targets"] if first[0] == target[0]) for target in data["targets"]]
    if heaped != data["targets"]:  # a target for several boxes
        plans.append([[action] for action in on_foot(problem, heaped, random)])
    own = on_foot(problem, data["targets"], random)
    for i, (row, column, colour, act) in enumerate(own[:-1]):  # a box that moves on in the step in which it comes
        if act != "target" and not boxes[own[i + 1][:3]]:
            plans.append([[action] for action in own[:i]] + [own[i : i + 2]] + [[action] for action in own[i + 2 :]])
        boxes[row, column, colour] -= 1
        if act != "target":
            boxes[own[i + 1][:3]] += 1
    for changed in (
        [[(column, row, colour, act) for row, column, colour, act in step] for step in plan],
        [[(row + 1, column + 1, colour, act) for row, column, colour, act in step] for step in plan],
    ):
        if not all(inside(problem, *action[:2]) for step in changed for action in step):
            plans.append(changed)
    return [*layouts_wrong(plan), *map(written, plans)]


# ---------------------------------------------------------------------------------------------------------------------


def moves_of(problem: Problem) -> list[Move]:
    """The plan of the solver."""
    return [(move[5], int(move[12]), int(move[17])) for move in problem.answer.splitlines()]


def in_lines(moves: list[Move]) -> str:
    """A line for each move, as the question asks for."""
    return "\n".join(f"Move {block} from {source} to {target}" for block, source, target in moves)


def moved(stacks: list[list[str]], moves: list[Move]) -> list[list[str]]:
    """The stacks after these moves, whatever the blocks are called."""
    stacks = [[*stack] for stack in stacks]
    for _, source, target in moves:
        stacks[target - 1].append(stacks[source - 1].pop())
    return stacks


def possible(stacks: list[list[str]]) -> list[Move]:
    """All moves of top blocks."""
    numbers = range(1, len(stacks) + 1)
    return [(stacks[i - 1][-1], i, j) for i in numbers for j in numbers if i != j and stacks[i - 1]]


def breadth_first(stacks: list[list[str]], goal: list[list[str]]) -> list[Move]:
    """A shortest plan, found by trying all."""
    queue = deque([(stacks, [])])
    seen = {str(stacks)}
    while queue[0][0] != goal:
        stacks, moves = queue.popleft()
        for move in possible(stacks):
            after = moved(stacks, [move])
            if str(after) not in seen:
                seen.add(str(after))
                queue.append((after, [*moves, move]))
    return queue[0][1]


def blocks_right(problem: Problem, random: Random) -> list[str]:
    moves, text = moves_of(problem), problem.answer
    assert len(moves) == len(breadth_first(problem.data["start"], problem.data["goal"]))
    stacks, detour = problem.data["start"], []
    for _ in range(random.randint(1, 12)):
        detour.append(random.choice(possible(stacks)))
        stacks = moved(stacks, detour[-1:])
    back = [(block, target, source) for block, source, target in reversed(detour)]
    lines = text.splitlines()
    return [
        text,
        in_lines(detour + back + moves),
        in_lines(detour + breadth_first(stacks, problem.data["goal"])),
        in_lines(moves + moves_back(moves) + moves),
        f"**{text}**",
        f"\n{text.replace(' ', '  ')}.\n",
        text.lower(),
        ", ".join(lines),
        ". ".join(lines) + ".",
        "; ".join(lines),
        str(lines),
        json.dumps(lines, indent=2),
        "\n\n".join(f"{i}. {line}" for i, line in enumerate(lines, 1)),
        "\n".join(f"Step {i}: {line}" for i, line in enumerate(lines, 1)),
        re.sub(r"(\d)", r"stack \1", text),
        re.sub(r"(\d)", r"stack\1", text).replace("Move", "Move block"),
        re.sub(r"Move (\w)", r"Move '\1'", text),
    ]


def moves_back(moves: list[Move]) -> list[Move]:
    """The moves that undo these."""
    return [(block, target, source) for block, source, target in reversed(moves)]


def blocks_wrong(problem: Problem, random: Random) -> list[str]:
    moves, start, text = moves_of(problem), problem.data["start"], problem.answer
    number, at = len(start), random.randrange(len(moves))
    block, source, target = moves[at]
    stacks = moved(start, moves[:at])

    def instead(*other: Move) -> list[Move]:
        return [*moves[:at], *other, *moves[at + 1 :]]

    plans = [
        moves[:-1],
        instead(),  # the plan is a shortest one
        [*moves, random.choice(possible(problem.data["goal"]))],
        moves_back(moves),
        instead(("Z", source, target)),
        instead((block, target, source)),
        instead((block, source, number + 1)),
        instead((block, source, 0)),
        instead((block, source, -1)),
        instead((block, 0, target)),
        instead((block, source - number, target)),
        instead((block, source, source), (block, source, target)),
        instead((block, source, target), (block, source, target)),
        *(
            instead((block, source, other), (block, source, target))
            for other in range(1, number + 1)
            if other != source
        ),
        *(instead((block, other, target)) for other in range(1, number + 1) if other != source),
        *(instead((other, source, target)) for stack in stacks for other in stack if other != block),
    ]
    for i, stack in enumerate(stacks, 1):
        for below in stack[:-1]:  # out of the middle of a stack, and back
            other = 1 + i % number
            plans += [instead((below, i, other), (below, other, i), moves[at])]
    if any(1 in move for move in moves):
        plans.append([(block, source - 1, target - 1) for block, source, target in moves])
    return [
        *(in_lines(plan) for plan in plans),
        *(f"{text}\n{more}" for more in ("Done", "2", "Move", "Move A", f"Move A from {number}", "...x")),
        text.replace("from", "to"),
        text.replace("Move", "Remove", 1),
        text.replace(" to ", " to 1", 1),
        text.replace("from ", "from 1", 1),
        re.sub("^", "2. ", text),
        "\n".join(f"Stack {i}: {' '.join(stack)}" for i, stack in enumerate(problem.data["goal"], 1)),
    ]


CASES = {
    "BoxLift": Case(lift_right, lift_wrong),
    "BoxNet": Case(net_right, net_wrong),
    "Blocksworld": Case(blocks_right, blocks_wrong),
}
