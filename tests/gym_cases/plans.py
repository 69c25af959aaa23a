"""Sequences of moves."""

import re

from suites.base import Problem
from tests.gym_cases import Case

# ---------------------------------------------------------------------------------------------------------------------
# Knights


def knights_right(problem: Problem) -> list[str]:
    if problem.answer == "No":
        return ["no", "NO.", '"No"']
    moves = re.findall(r"[wB],..,..", problem.answer)
    return ["\n".join(moves), str(moves), "; ".join(moves).lower(), "[" + problem.answer.replace(" ", "")[1:]]


def knights_wrong(problem: Problem) -> list[str]:
    if problem.answer == "No":
        return ["Yes", "[]", "No, it is impossible", '["w,A1,B3"]', '["No"]']
    moves = re.findall(r"[wB],..,..", problem.answer)
    color, start, end = moves[0].split(",")
    other = "B" if color == "w" else "w"
    changed = [
        moves[:-1],
        moves[1:],
        moves[::-1],
        [*moves, moves[0]],
        [f"{other},{start},{end}", *moves[1:]],
        moves * 2,
    ]
    outside = [[f"{color},{start},{start}", *moves], [f"{color},{start},D9", *moves[1:]], [*moves[:-1], moves[-1][:-3]]]
    return ["No", "[]", *(str(answer) for answer in [*changed, *outside])]


# ---------------------------------------------------------------------------------------------------------------------
# Cars, boxes, disks


def cars_right(problem: Problem) -> list[str]:
    moves = problem.answer.split()
    single = [f"{move[:2]}1" for move in moves for _ in range(int(move[2:]))]
    out = [*moves, "A+2"]  # through the exit
    back = [*moves, "A-1", "A+1"]
    return [", ".join(moves), "\n".join(moves), str(moves), *(" ".join(plan) for plan in (single, out, back))]


def cars_wrong(problem: Problem) -> list[str]:
    moves = problem.answer.split()
    labels = {label for row in problem.data["board"] for label in row}
    missing = next(label for label in "QRSTUVWXYZ" if label not in labels)
    first = moves[0]
    changed = [moves[:-1], [*moves, "A-1"], [*moves, "A+3"], [f"{missing}+1", *moves], [f"{first[:2]}9", *moves[1:]]]
    odd = [["A+0", *moves], [first[0] + first[2:], *moves[1:]], ["x+1", *moves], [".+1", *moves], [*moves, first[0]]]
    return ["A+4", *(" ".join(plan) for plan in [*changed, *odd])]


def boxes_right(problem: Problem) -> list[str]:
    """Other ways to write the steps, and a step to a free neighbor and back before all of them."""
    answer, board = problem.answer, problem.data["board"]
    r, c = next((r, row.index(cell)) for r, row in enumerate(board) for cell in "*%" if cell in row)
    steps = {"LR": board[r][c - 1], "RL": board[r][c + 1], "UD": board[r - 1][c], "DU": board[r + 1][c]}
    detours = [there_and_back + answer for there_and_back, cell in steps.items() if cell in "-X"]
    return [answer.lower(), " ".join(answer), ", ".join(answer), str(list(answer)), *detours]


def boxes_wrong(problem: Problem) -> list[str]:
    answer = problem.answer
    walls = [answer + letter * 20 for letter in "LRUD"]  # nobody walks that far
    return [*walls, answer[:-1], answer + "X", answer.replace(answer[0], "N", 1), answer[0] + "2" + answer[1:]]


def disks_right(problem: Problem) -> list[str]:
    """Other ways to write the moves, and a way round for the smallest disk, which can go anywhere."""
    data, lines = problem.data, problem.answer.splitlines()
    start, end = data["start_peg"], int(lines[0][-1])
    other = next(peg for peg in range(1, data["num_pegs"] + 1) if peg not in (start, end))
    detour = [f"Move disk 1 from Peg {start} to Peg {other}", f"Move disk 1 from Peg {other} to Peg {end}", *lines[1:]]
    return [problem.answer.lower(), ".\n".join(lines), "\n\n  ".join(lines), "\r\n".join(lines), "\n".join(detour)]


def disks_wrong(problem: Problem) -> list[str]:
    lines = problem.answer.splitlines()
    start, largest = problem.data["start_peg"], problem.data["num_disks"]
    still = f"Move disk 1 from Peg {start} to Peg {start}"
    away = f"Move disk 1 from Peg {problem.data['target_peg']} to Peg {start}"
    swapped = [lines[1], lines[0], *lines[2:]]
    outside = [re.sub("Peg .$", f"Peg {problem.data['num_pegs'] + 1}", lines[0]), *lines[1:]]
    other_disk = [lines[0].replace("disk 1", f"disk {largest}"), *lines[1:]]
    changed = [lines[:-1], lines[1:], swapped, [still, *lines], [*lines, away], outside, other_disk, lines[::-1]]
    numbered = [f"{i}. {line}" for i, line in enumerate(lines, 1)]
    return ["\n".join(answer) for answer in [*changed, ["Solution:", *lines], numbered, [" ".join(lines)]]]


# ---------------------------------------------------------------------------------------------------------------------
# Rubik's cube


def turns_right(problem: Problem) -> list[str]:
    """Other ways to write the turns; the same turn as three back; turns of the whole cube, or of two layers for one."""
    moves = problem.answer.split()
    last = moves[-1]
    three = [last[0] if last.endswith("'") else last + "'"] * 3
    longer = [[*moves[:-1], *three], [*moves, "x", "y'"], [*moves, "R", "M'", "L'"], ["U", "U'", *moves]]
    face, prime = last[0], last[1:]
    back = "" if prime else "'"
    slices = {"R": f"M{prime}", "L": f"M{back}", "U": f"E{prime}", "D": f"E{back}", "F": f"S{back}", "B": f"S{prime}"}
    longer.append([*moves[:-1], face.lower() + prime, slices[face]])
    answers = [" ".join(plan) for plan in longer]
    return ["".join(moves), ", ".join(moves), f"({' '.join(moves)})", problem.answer.replace("'", "’"), *answers]


def turns_wrong(problem: Problem) -> list[str]:
    moves = problem.answer.split()
    last = moves[-1]
    other = last[0] if last.endswith("'") else last + "'"
    changed = [moves[:-1], [*moves, "U"], [*moves[:-1], other], [*moves, "M"], [*moves, "u"], [*moves, "U2", "U2"]]
    return [" ".join(plan) for plan in [*changed, [*moves, "'"], ["'", *moves], [*moves, "w"], [*moves, "U''", "U"]]]


# ---------------------------------------------------------------------------------------------------------------------


CASES = {
    "knight_swap": Case(knights_right, knights_wrong),
    "rubiks_cube": Case(turns_right, turns_wrong),
    "rush_hour": Case(cars_right, cars_wrong),
    "sokoban": Case(boxes_right, boxes_wrong),
    "tower_of_hanoi": Case(disks_right, disks_wrong),
}
