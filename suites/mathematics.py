"""Word problems and mathematics from data sets: GSM-Hard (Gao et al., 2023), two subjects of MATH (Hendrycks et al.,
2021)."""

from fractions import Fraction

from suites.latex import equivalent, simplify
from suites.parsers import parse_number
from suites.stored import Row, StoredTask, json_file, json_folder

TOLERANCE = Fraction(1, 1000)  # relative: the references of GSM-Hard are floats, and answers are rounded


def close_number(answer: str, reference: str) -> bool:
    """A number within a thousandth of the reference; with a sign of money or percent."""
    value, wanted = parse_number(simplify(answer)), parse_number(reference)
    return value is not None and wanted is not None and abs(value - wanted) <= TOLERANCE * abs(wanted)


def boxed(solution: str) -> str | None:
    """What stands in the last \\boxed{...} of a solution, which is the answer in MATH."""
    start = solution.rfind("\\boxed")
    opening = solution.find("{", start)
    if start < 0 or opening < 0:
        return None
    depth = 0
    for at in range(opening, len(solution)):
        depth += (solution[at] == "{") - (solution[at] == "}")
        if depth == 0:
            return solution[opening + 1 : at].strip()
    return None


def _gsm_row(stored: dict) -> Row:
    return stored["input"], repr(float(stored["target"]))


def _math_row(stored: dict) -> Row | None:
    answer = boxed(stored["solution"])
    return (stored["problem"], answer) if answer else None


def _math(name: str, folder: str) -> StoredTask:
    hub = ("EleutherAI/hendrycks_math", folder, "train")
    return StoredTask(name, "symbench", equivalent, json_folder(f"MATH/train/{folder}"), hub, _math_row)


_GSM = ("reasoning-machines/gsm-hard", "", "train")
TASKS = [
    StoredTask("gsm", "symbench", close_number, json_file("gsmhardv2.jsonl"), _GSM, _gsm_row),
    _math("MATH_geometry", "geometry"),
    _math("MATH_counting_and_probability", "counting_and_probability"),
]
