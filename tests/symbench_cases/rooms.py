"""Ways through rooms with walls.

The ways here go from centre to centre of neighbouring squares of side 1. All boxes and walls have whole coordinates, so
the squares tell exactly what such a way touches, without any of the checker's geometry.
"""

import json
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import pairwise, permutations
from random import Random

from suites.base import Problem
from tests.symbench_cases import Case

MOST = 40  # waypoints
PLACES = 20  # after the decimal point
HALF = Fraction(1, 2)  # from the centre of a square to its side
LEAST = Fraction(1, 10**PLACES)

Square = tuple[int, int]  # its lower left corner
Point = tuple[Fraction, Fraction]
STEPS = ((1, 0), (-1, 0), (0, 1), (0, -1))


def decimal(value: Fraction, places: int) -> str:
    whole = abs(value) * 10**places
    assert whole.denominator == 1, value
    digits = f"{whole.numerator:0{places + 1}}"
    return "-" * (value < 0) + f"{digits[:-places]}.{digits[-places:]}".rstrip("0").rstrip(".")


def text(points: Iterable[Point], places: int = PLACES) -> str:
    return ", ".join(f"({decimal(x, places)}, {decimal(y, places)})" for x, y in points)


def points_of(answer: str) -> list[Point]:
    numbers = [Fraction(number) for number in answer.replace("(", "").replace(")", "").split(", ")]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def middle(square: Square) -> Point:
    return square[0] + HALF, square[1] + HALF


def moved(point: Point, direction: Square, distance: Fraction) -> Point:
    return point[0] + direction[0] * distance, point[1] + direction[1] * distance


class Place:
    """A problem's room as squares, and ways from square to square."""

    def __init__(self, problem: Problem, random: Random):
        data = problem.data
        self.random = random
        self.steps = random.sample(STEPS, 4)  # the order in which to search
        self.visit, self.end, self.avoid, self.walls = data["visit"], data["end"], data["avoid"], data["walls"]
        self.width, self.height = data["room"]
        x, y = data["start"]
        self.start = (Fraction(x), Fraction(y))
        self.first = (min(x, self.width - 1), min(y, self.height - 1))
        self.areas = data["boxes"]
        self.boxes = {
            colour: [(x, y) for x in range(x1, x2) for y in range(y1, y2)]
            for colour, (x1, y1, x2, y2) in self.areas.items()
        }
        self.closed = {square for colour in self.avoid for square in self.boxes[colour]}
        # The two squares at each piece of wall that is 1 long, either of them first.
        upright = [((x - 1, y), (x, y)) for x, y1, x2, y2 in self.walls if x == x2 for y in range(y1, y2)]
        level = [((x, y - 1), (x, y)) for x1, y, x2, y2 in self.walls if y == y2 for x in range(x1, x2)]
        self.walled = {pair for a, b in upright + level for pair in ((a, b), (b, a))}

    def has(self, square: Square) -> bool:
        return 0 <= square[0] < self.width and 0 <= square[1] < self.height

    def opens(self, square: Square, new: Square) -> bool:
        """Whether one can go from a square to its neighbour."""
        return self.has(new) and new not in self.closed and (square, new) not in self.walled

    def way(self, start: Square, goals: Iterable[Square], banned: Iterable[Square] = ()) -> list[Square]:
        """A shortest way to one of these squares that touches nothing forbidden."""
        goals, banned = set(goals), set(banned)
        reached, came_from = [start], {start: start}
        for square in reached:
            if square in goals:
                break
            for dx, dy in self.steps:
                new = (square[0] + dx, square[1] + dy)
                if new not in came_from and new not in banned and self.opens(square, new):
                    came_from[new] = square
                    reached.append(new)
        assert square in goals
        way = [square]
        while way[-1] != start:
            way.append(came_from[way[-1]])
        return way[::-1]

    def tour(self, colours: Sequence[str], start: Square | None = None) -> list[Square]:
        """A way through these boxes in this order, and meanwhile through none of the others to visit or to end in, save
        one in which it starts."""
        way = [start or self.first]
        for colour in colours:
            others = [self.boxes[other] for other in (*self.visit, self.end) if other != colour]
            banned = [square for other in others if way[-1] not in other for square in other]
            way += self.way(way[-1], self.boxes[colour], banned)[1:]
        return way

    def path(self, way: Sequence[Square]) -> list[Point]:
        """The waypoints where a way begins, turns and ends."""
        turns = [
            b
            for a, b, c in zip(way, way[1:], way[2:], strict=False)
            if (a[0] + c[0], a[1] + c[1]) != (2 * b[0], 2 * b[1])
        ]
        return [middle(square) for square in (way[0], *turns, way[-1])]

    def walk(self, *colours: str) -> list[Point]:
        return [self.start, *self.path(self.tour(colours))]

    def with_detour(self, square: Square, detour: Sequence[Point], back: Square) -> list[Point]:
        """To a square, along the detour, back to a square, and from there as the task says."""
        before, after = self.way(self.first, [square]), self.tour([*self.visit, self.end], back)
        return [self.start, *self.path(before), *detour, *self.path(after)]

    def with_spur(self, square: Square, direction: Square, distance: Fraction) -> list[Point]:
        """Some way from the centre of a square in this direction, and back: a half is to the side of the square."""
        return self.with_detour(square, [moved(middle(square), direction, distance)], square)

    def beside(self, colour: str) -> tuple[Square, Square]:
        """A square beside a box, and the direction from there to the box."""
        box = self.boxes[colour]
        pairs = [((x - dx, y - dy), (dx, dy)) for x, y in box for dx, dy in STEPS]
        return self.random.choice([pair for pair in pairs if pair[0] not in box and self.has(pair[0])])

    def at_border(self) -> tuple[Square, Square]:
        """A square at the border of the room, and the direction from there to the border."""
        x, y = self.random.randrange(self.width), self.random.randrange(self.height)
        pairs = [((x, 0), (0, -1)), ((x, self.height - 1), (0, 1)), ((0, y), (-1, 0)), ((self.width - 1, y), (1, 0))]
        return self.random.choice([pair for pair in pairs if pair[0] not in self.closed] or [self.at_border()])

    def spur(self, distance: Fraction) -> list[Point]:
        """Towards a box to avoid, or a wall."""
        ends = [self.beside(colour) for colour in self.avoid]
        if self.walls:
            a, b = self.random.choice(sorted(self.walled))
            ends.append((a, (b[0] - a[0], b[1] - a[1])))
        return self.with_spur(*self.random.choice(ends), distance)

    def around_corner(self, gap: Fraction) -> list[Point]:
        """Aslant past a corner of a box to avoid, or past the end of a wall in a door; a gap of 0 touches it."""
        ways = []  # from square to square, with the direction away from the box or the wall
        for x1, y1, x2, y2 in (self.areas[colour] for colour in self.avoid):
            ways += [
                ((x1, y1 - 1), (x1 - 1, y1), (-1, -1)),
                ((x1, y2), (x1 - 1, y2 - 1), (-1, 1)),
                ((x2 - 1, y1 - 1), (x2, y1), (1, -1)),
                ((x2 - 1, y2), (x2, y2 - 1), (1, 1)),
            ]
        for x1, y1, x2, y2 in self.walls:
            for x, y, sign in ((x1, y1, -1), (x2, y2, 1)):
                beyond, short = (0, -1) if sign > 0 else (-1, 0)
                if sum(a1 <= x <= a2 and b1 <= y <= b2 for a1, b1, a2, b2 in self.walls) > 1:
                    continue
                if x1 == x2:
                    ways.append(((x - 1, y + short), (x, y + beyond), (0, sign)))
                else:
                    ways.append(((x + short, y - 1), (x + beyond, y), (sign, 0)))
        a, b, away = self.random.choice([way for way in ways if self.has(way[0]) and self.has(way[1])])
        return self.with_detour(a, [moved(middle(b), away, gap)], b)

    def through_box(self) -> list[list[Point]]:
        """Through a box to avoid: with a segment that lies inside, and with a leap from one side to the other."""
        colour = self.random.choice(self.avoid)
        box, (square, (dx, dy)) = self.boxes[colour], self.beside(colour)
        paths = [self.with_detour(square, [middle(inner) for inner in self.random.sample(box, 2)], square)]
        beyond = (square[0] + dx, square[1] + dy)
        while beyond in box:
            beyond = (beyond[0] + dx, beyond[1] + dy)
        if self.has(beyond):
            paths.append(self.with_detour(square, [], beyond))
        return paths

    def nearly_there(self, colour: str, distance: Fraction) -> list[Point]:
        """The way of the task, but this box to visit, or to end in, is only approached from a square beside it."""
        stops = [*self.visit, self.end]
        turn = stops.index(colour)
        square, direction = self.beside(colour)
        way = self.tour(stops[:turn])
        way += self.way(way[-1], [square], self.boxes[colour])[1:]
        path = [self.start, *self.path(way), moved(middle(square), direction, distance)]
        return path if colour == self.end else [*path, *self.path(self.tour(stops[turn + 1 :], square))]

    def ahead(self, square: Square, dx: int, dy: int) -> list[Square]:
        """The squares straight on from this one, as far as the way is open."""
        line = [square]
        while self.opens(line[-1], new := (line[-1][0] + dx, line[-1][1] + dy)):
            line.append(new)
        return line

    def in_one_go(self) -> list[list[Point]]:
        """With one leap through two boxes to visit one after the other, if some lie so that there is such a path."""
        for turn, (one, two) in enumerate(pairwise(self.visit)):
            for square in self.boxes[one]:
                for dx, dy in self.steps:
                    before, after = self.ahead(square, -dx, -dy), self.ahead(square, dx, dy)
                    outside = [s for s in before if s not in self.boxes[one]]
                    through = [i for i, s in enumerate(after[:-1]) if s in self.boxes[two]]
                    if outside and through:
                        way = self.tour(self.visit[:turn])
                        way += self.way(way[-1], outside[:1], self.boxes[one])[1:]
                        rest = self.tour([*self.visit[turn + 2 :], self.end], after[through[-1] + 1])
                        return [[self.start, *self.path(way), *self.path(rest)]]
        return []

    def breaks(self, points: Sequence[Point]) -> bool:
        """Whether the path goes through something forbidden, by samples: if they say so, it does."""
        boxes = [self.areas[colour] for colour in self.avoid]
        for (px, py), (qx, qy) in pairwise((float(x), float(y)) for x, y in points):
            samples = [(px + (qx - px) * i / 100, py + (qy - py) * i / 100) for i in range(101)]
            for (ax, ay), (bx, by) in pairwise(samples):
                if any(x1 < ax < x2 and y1 < ay < y2 for x1, y1, x2, y2 in boxes):
                    return True
                for x1, y1, x2, y2 in self.walls:
                    if x1 == x2 and (ax - x1) * (bx - x1) < 0 and y1 < min(ay, by) and max(ay, by) < y2:
                        return True
                    if y1 == y2 and (ay - y1) * (by - y1) < 0 and x1 < min(ax, bx) and max(ax, bx) < x2:
                        return True
        return False


def layouts(answer: str) -> list[str]:
    points = points_of(answer)
    strings = [[decimal(x, PLACES), decimal(y, PLACES)] for x, y in points]
    floats = [(float(x), float(y)) for x, y in points]
    return [
        answer,
        f"[{answer}]",
        f"({answer})",
        f"**{answer}**",
        f" {answer}. ",
        str(floats),
        json.dumps(floats),
        json.dumps(strings, indent=2),
        answer.replace(" ", ""),
        answer.replace(".5", ".500"),
        answer.replace("), (", ") ("),
        answer.replace("), (", ")\n("),
        answer.replace("), (", ") -> ("),
        answer.replace("), (", ") → ("),
        answer.replace("), (", "); ("),
        "\n".join(f"{x}, {y}" for x, y in strings),
        "; ".join(f"{x} {y}" for x, y in strings),
    ]


def rooms_right(problem: Problem, random: Random) -> list[str]:
    place, points = Place(problem, random), points_of(problem.answer)
    halfway = [points[0]]
    for p, q in pairwise(points):
        share = Fraction(random.randint(1, 7), 8)
        halfway += [(p[0] + (q[0] - p[0]) * share, p[1] + (q[1] - p[1]) * share), q]
    stops = [*place.visit, place.end]
    paths = [
        halfway,
        [point for point in points for _ in range(2)],
        points + points[-1:] * (MOST - len(points)),
        place.walk(*stops),
        [place.start, *map(middle, place.tour(stops))],
        place.walk(*reversed(stops), *stops),
        place.with_spur(*place.at_border(), HALF),
        place.spur(HALF - LEAST),
        place.around_corner(LEAST),
        place.nearly_there(random.choice(stops), HALF),
        *place.in_one_go(),
    ]
    return [*layouts(problem.answer), *(text(path) for path in paths if len(path) <= MOST)]


def rooms_wrong(problem: Problem, random: Random) -> list[str]:
    place, answer, points = Place(problem, random), problem.answer, points_of(problem.answer)
    visit, end, (start, *rest) = place.visit, place.end, points
    ended = place.tour([*visit, end])
    border = place.at_border()
    paths = [
        *place.through_box(),
        place.spur(HALF),
        place.around_corner(Fraction(0)),
        place.nearly_there(random.choice([*visit, end]), HALF - LEAST),
        place.with_spur(*border, HALF + LEAST),
        place.with_spur(*border, HALF + 3),
        [start, *place.path([*ended, *place.way(ended[-1], [place.beside(end)[0]])])],
        rest,
        points[::-1],
        [middle(place.first), *points],
        [moved(start, (1 if start[0] == 0 else -1, 0), LEAST), *rest],
        [start],
        [],
    ]
    if place.walls:
        a, b = random.choice(sorted(place.walled))
        paths.append(place.with_detour(a, [], b))
    if visit:
        turn = random.randrange(len(visit))
        fewer_visits = [*visit[:turn], *visit[turn + 1 :]]
        paths += [place.walk(*fewer_visits, end), place.walk(*fewer_visits, end, visit[turn])]
    if len(visit) > 1:
        swapped = random.choice([order for order in permutations(visit) if list(order) != visit])
        paths.append(place.walk(*swapped, end))
    # Waypoints left out, and straight on from box to box: wrong where the samples say so.
    left_out = random.sample(range(1, len(points) - 1), min(3, len(points) - 2))
    fewer = [points[:i] + points[i + 1 :] for i in left_out]
    middles = [((x1 + x2) * HALF, (y1 + y2) * HALF) for x1, y1, x2, y2 in (place.areas[c] for c in (*visit, end))]
    paths += [path for path in (*fewer, [start, *middles]) if place.breaks(path)]
    (x, y), (x1, y1, x2, y2) = points[-1], place.areas[end]
    if not (x1 <= y <= x2 and y1 <= x <= y2):
        paths.append([start, *((y, x) for x, y in rest)])
    return [
        *(text(path) for path in paths if len(path) <= MOST),
        text(points + points[-1:] * (MOST + 1 - len(points))),
        text(place.with_spur(*border, HALF - LEAST / 10), PLACES + 1),
        answer.replace(")", ", 0)"),
        answer.replace("(", "").replace(")", ""),
        answer[1:],
        answer[:-1],
        f"{answer}, ()",
        f"{answer}, (1)",
        f"{answer}, 1",
        f"Path: {answer}",
        f"{answer}\n{problem.answer.replace('(', '[').replace(')', '')}",
        answer.replace("(", "(x = "),
    ]


CASES = {"path_plan_continuous": Case(rooms_right, rooms_wrong)}
