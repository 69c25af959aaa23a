"""Ways through rooms with walls."""

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from random import Random

from suites.parsers import number_grid, unwrap
from suites.symbench.common import Data, Puzzle, Sample

MAX_WAYPOINTS = 40
MAX_DECIMALS = 20
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
DOOR = 2  # how wide a door is

Point = Sequence[int | Fraction]

Rectangle = Sequence[int]
"""Left, bottom, right, top. A wall is a rectangle without width or without height."""


def part_inside(p: Point, q: Point, area: Rectangle) -> tuple[Fraction, Fraction] | None:
    """Which part of the segment from p to q lies in the rectangle, its border included: from where to where, 0 being at
    p and 1 at q; None if the segment does not even touch it."""
    for axis in (0, 1):
        if max(p[axis], q[axis]) < area[axis] or min(p[axis], q[axis]) > area[axis + 2]:
            return None
    first, last = Fraction(0), Fraction(1)
    for axis in (0, 1):
        if step := q[axis] - p[axis]:
            enter, leave = sorted(Fraction(side - p[axis], step) for side in (area[axis], area[axis + 2]))
            first, last = max(first, enter), min(last, leave)
    return (first, last) if first <= last else None


def is_free(p: Point, q: Point, areas: Sequence[Rectangle]) -> bool:
    """Whether the segment from p to q touches none of these rectangles."""
    return all(part_inside(p, q, area) is None for area in areas)


def centre(area: Rectangle) -> Point:
    """The point in the middle of the rectangle."""
    left, bottom, right, top = area
    return Fraction(left + right, 2), Fraction(bottom + top, 2)


def apart(a: Rectangle, b: Rectangle) -> bool:
    """Whether an upright or a level strip at least 1 wide lies between the two rectangles."""
    return any(a[axis + 2] + 1 <= b[axis] or b[axis + 2] + 1 <= a[axis] for axis in (0, 1))


def forbidden(data: Data) -> list[Rectangle]:
    """What the path may not touch: the walls, and the boxes to avoid."""
    return [*data["walls"], *(data["boxes"][colour] for colour in data["avoid"])]


class PathPlanContinuous(Puzzle):
    """Waypoints through a room with walls, to visit coloured boxes in a stated order and not to touch others."""

    name, kind = "path_plan_continuous", "exact geometry"
    # Longest side of the room, boxes, boxes to visit before the one to end in, boxes to avoid, walls.
    levels = (
        (12, 4, 0, 1, 0),
        (12, 4, 1, 1, 0),
        (14, 5, 1, 2, 1),
        (16, 6, 2, 2, 1),
        (18, 6, 2, 2, 2),
        (20, 7, 3, 2, 3),
    )
    max_answer = 4000  # as many waypoints as there may be, of as many places, in any layout

    def make(self, random: Random, level: tuple[int, int, int, int, int]) -> Data:
        size, boxes, visits, avoided, walls = level
        colours = random.sample(COLOURS, boxes)
        roles = {"visit": colours[:visits], "end": colours[visits], "avoid": colours[-avoided:]}
        listed = random.sample(colours, boxes)
        while True:
            room = [random.randint(size - 2, size), random.randint(size - 2, size)]
            data: Data = {"room": room, "walls": self._draw_walls(random, room, walls)}
            areas = self._draw_areas(random, data, boxes + 1)
            if len(areas) <= boxes:
                continue
            data |= {"start": areas[0][:2], "boxes": dict(zip(listed, areas[1:], strict=True)), **roles}
            # Where the boxes can be visited straight from centre to centre, there is nothing to plan.
            stops = [data["start"], *(centre(data["boxes"][colour]) for colour in colours[: visits + 1])]
            if not all(is_free(p, q, forbidden(data)) for p, q in pairwise(stops)):
                return data

    @staticmethod
    def _draw_walls(random: Random, room: Sequence[int], number: int) -> list[list[int]]:
        """No walls; or one from side to side, with up to one more on either side of it, at a right angle. Each has a
        door, so that one can get everywhere."""
        if not number:
            return []
        turned = random.random() < 0.5
        width, height = reversed(room) if turned else room
        middle = random.randint(width // 3, width - width // 3)
        door = random.randint(1, height - DOOR - 1)
        walls = [[middle, 0, middle, door], [middle, door + DOOR, middle, height]]
        for left, right in random.sample([(0, middle), (middle, width)], number - 1):
            level = random.choice([y for y in range(4, height - 3) if not door < y < door + DOOR])
            gap = random.randint(left + 1, right - DOOR - 1)
            walls += [[left, level, gap, level], [gap + DOOR, level, right, level]]
        return [[y1, x1, y2, x2] for x1, y1, x2, y2 in walls] if turned else walls

    @staticmethod
    def _draw_areas(random: Random, data: Data, number: int) -> list[list[int]]:
        """A point, and boxes as long as there is room for them. They keep apart from the walls and from each other, so
        that there is always a way between them."""
        areas: list[list[int]] = []
        for _ in range(20 * number):
            wide, high = (random.randint(2, 4), random.randint(2, 4)) if areas else (0, 0)
            x, y = (random.randint(0, side - length) for side, length in zip(data["room"], (wide, high), strict=True))
            area = [x, y, x + wide, y + high]
            if all(apart(area, other) for other in areas + data["walls"]):
                areas.append(area)
            if len(areas) == number:
                break
        return areas

    def ask(self, data: Data) -> str:
        (width, height), (x, y), end = data["room"], data["start"], data["end"]
        areas = data["boxes"].items()
        boxes = "\n".join(f"- {colour}: ({x1}, {y1}) to ({x2}, {y2})" for colour, (x1, y1, x2, y2) in areas)
        walls = "\n".join(f"- ({x1}, {y1}) to ({x2}, {y2})" for x1, y1, x2, y2 in data["walls"])
        task = ", then ".join([*(f"visit the {colour} box" for colour in data["visit"]), f"end in the {end} box"])
        avoid = " or ".join(f"the {colour} box" for colour in data["avoid"])
        return (
            "Plan the path of a robot through a rectangular room, seen from above. A point of the plane is written "
            f"(x, y). The room consists of the points with 0 <= x <= {width} and 0 <= y <= {height}.\n\n"
            "On the floor there are coloured boxes, rectangles with sides parallel to the axes, given by two opposite "
            f"corners:\n\n{boxes}\n\n"
            + (f"Inside the room there are walls, straight lines without thickness:\n\n{walls}\n\n" if walls else "")
            + f"Your task: start at ({x}, {y}), {task}. Never touch {avoid}.\n\n"
            "The rules:\n\n"
            f"- A path is a list of at most {MAX_WAYPOINTS} waypoints, the start included. The robot moves from each "
            f"waypoint to the next on a straight line. The first waypoint must be the start ({x}, {y}).\n"
            "- All points of the path must belong to the room. Its border belongs to it and may be touched.\n"
            + ("- No point of the path may lie on a wall; the two ends of a wall belong to it.\n" if walls else "")
            + f"- No point of the path may lie in {avoid}. The border of a box belongs to the box, here and in the "
            "following rules.\n"
            f"- The last waypoint must lie in the {end} box.\n"
            + self._rule_of_visits(data["visit"])
            + "- The path may cross itself, and it may lead through any box that is not to be avoided, at any time and "
            "as often as it likes.\n"
            f"- Coordinates are whole numbers or decimals of at most {MAX_DECIMALS} places. They are judged exactly, "
            "nothing is rounded.\n\n"
            "Return the waypoints in the format <<<(x, y), (x, y), ...>>>, for example <<<(0.5, 2), (3, 2.25), "
            "(3, 7)>>>."
        )

    @staticmethod
    def _rule_of_visits(colours: Sequence[str]) -> str:
        if not colours:
            return ""
        rule = "- To visit a box is to have a point of the path in it; this need not be a waypoint."
        if len(colours) > 1:
            points = ", ".join(f"one in the {colour} box" for colour in colours)
            rule += (
                f" Along the path there must be points in this order: {points}. To pass a box before its turn does no "
                "harm, but does not count as its visit."
            )
        return rule + "\n"

    def check(self, data: Data, answer: str) -> bool:
        points = number_grid(re.sub("->|→|;", "\n", unwrap(answer)))
        return (
            0 < len(points) <= MAX_WAYPOINTS
            and all(self._is_in_room(data, point) for point in points)
            and points[0] == data["start"]
            and part_inside(points[-1], points[-1], data["boxes"][data["end"]]) is not None
            and all(is_free(p, q, forbidden(data)) for p, q in pairwise(points))
            and self._visits(data, points)
        )

    @staticmethod
    def _is_in_room(data: Data, point: Sequence[Fraction | None]) -> bool:
        """Whether this is a point, of not too many decimals, in the room."""
        return len(point) == 2 and all(
            value is not None and 0 <= value <= side and (value * 10**MAX_DECIMALS).denominator == 1
            for value, side in zip(point, data["room"], strict=True)
        )

    @staticmethod
    def _visits(data: Data, points: Sequence[Point]) -> bool:
        """Whether the path visits the boxes in their order: it is enough to take each visit as early as possible."""
        waiting = [data["boxes"][colour] for colour in data["visit"]]
        for p, q in pairwise(points):
            now = Fraction(0)
            while waiting and (part := part_inside(p, q, waiting[0])) and part[1] >= now:
                now = max(now, part[0])
                waiting.pop(0)
        return not waiting

    def solve(self, data: Data) -> str:
        # Everything is counted in halves, to be whole.
        path = [(2 * data["start"][0], 2 * data["start"][1])]
        areas = [[2 * side for side in area] for area in forbidden(data)]
        for colour in (*data["visit"], data["end"]):
            way = self._shortest_way(data, path[-1], [2 * side for side in data["boxes"][colour]])
            while way:  # on to the furthest point that lies straight ahead
                ahead = range(len(way) - 1, 0, -1)
                furthest = next((i for i in ahead if is_free(path[-1], way[i], areas)), 0)
                path.append(way[furthest])
                way = way[furthest + 1 :]
        return ", ".join(f"({x / 2:g}, {y / 2:g})" for x, y in path)

    @staticmethod
    def _shortest_way(data: Data, start: tuple[int, int], target: Rectangle) -> list[tuple[int, int]]:
        """From the start, a shortest way into the box through the centres of squares of side 1. What is forbidden
        consists of such squares and their sides, so there is such a way if there is any. All in halves."""
        left, bottom, right, top = target
        width, height = (2 * side for side in data["room"])
        blocked = {
            (x, y)
            for x1, y1, x2, y2 in forbidden(data)
            for x in range(2 * x1, 2 * x2 + 1)
            for y in range(2 * y1, 2 * y2 + 1)
        }
        first = (min(start[0], width - 1) | 1, min(start[1], height - 1) | 1)
        reached, came_from = [first], {first: first}
        for x, y in reached:
            if left < x < right and bottom < y < top:
                break
            for dx, dy in ((1, 0), (0, 1), (-1, 0), (0, -1)):
                side, square = (x + dx, y + dy), (x + 2 * dx, y + 2 * dy)
                inside = 0 < square[0] < width and 0 < square[1] < height
                if inside and square not in came_from and blocked.isdisjoint((side, square)):
                    came_from[square] = (x, y)
                    reached.append(square)
        way = [(x, y)]
        while way[-1] != first:
            way.append(came_from[way[-1]])
        return way[::-1]

    def published(self, folder: Path) -> Iterator[Sample]:
        """None: this puzzle was published without samples."""
        yield from ()


TASKS: list[Puzzle] = [PathPlanContinuous()]
