"""Data sets of reasoning-gym at their default configurations: its question texts verbatim, our own exact scoring.

The library's `score_answer` is never used: it gives consolation credit, and some scorers evaluate the answer in the
calling process. Each data set has a rule instead, which says what an answer must be. Here are the class that all data
sets share and the rules that several of them do.

Item i of a data set with seed s is drawn from `Random(s + i)`, so with seed 0 the index of a problem IS its seed.
A few items contradict themselves (an equation "0 = 0", a "2022" that means 2023): such an index stands for another
item, see `GymTask.problem`.
"""

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import Any

from suites.base import Problem, Task
from suites.parsers import parse_number, split_items, unwrap

MAX_ANSWER = 2000  # characters, unless a data set needs more
SUBSTITUTE_STEP = 10**8  # beyond every index in use, so no substitute is another index's problem
SUBSTITUTES = 1000

Entry = dict[str, Any]
Rule = Callable[[Problem, str], bool]


@cache
def dataset(name: str) -> Any:
    """The library's data set of this name."""
    import reasoning_gym  # two seconds of imports, paid by the first problem and not by `import tasks`

    return reasoning_gym.create_dataset(name, seed=0, size=10**18)  # the size is a bound, nothing is allocated


class GymTask(Task):
    """One data set: its name, the rule for answers, a test for items to pass over, and metadata the rule needs.

    `keep`: keys of the entry's metadata that go into `Problem.data`; a function makes `data` of an entry itself, as
    plain JSON values. An "answer" in there takes the place of the library's: where it has none, another one in every
    process, or one with other digits than the question asks for. The rule gets the answer without surrounding white
    space and quotes and without a final full stop; answers longer than `max_answer` characters are wrong without being
    looked at.
    """

    suite = "gym"
    source = "reasoning-gym"

    def __init__(
        self,
        name: str,
        rule: Rule,
        sound: Callable[[Entry], bool] = lambda entry: True,
        keep: tuple[str, ...] | Callable[[Entry], dict[str, Any]] = (),
        max_answer: int = MAX_ANSWER,
        few: bool = False,
    ):
        self.few = few
        self.name, self._rule, self._sound, self._keep, self._max_answer = name, rule, sound, keep, max_answer
        self.kind = rule.__name__.replace("_", " ")

    def entry(self, seed: int) -> Entry | None:
        """The library's item of this seed, None if it contradicts itself or cannot be made."""
        entry = self.make(seed)
        return entry if entry is not None and self._sound(entry) else None

    def make(self, seed: int) -> Entry | None:
        """The library's item of this seed, sound or not; None where it gives up or divides by 0, which happens once in
        a thousand mazes and a million decimals. To override for data sets that do not give the same item in every
        process."""
        try:
            return dataset(self.name)[seed]
        except (ArithmeticError, RuntimeError):
            return None

    def problem(self, index: int) -> Problem:
        """The item of this index or, if that contradicts itself, the first sound one at steps of SUBSTITUTE_STEP."""
        if not 0 <= index < SUBSTITUTE_STEP:
            raise ValueError(f"{self.name}: a problem's index is a seed from 0 to {SUBSTITUTE_STEP - 1}, not {index}")
        entry = next(filter(None, map(self.entry, range(index, SUBSTITUTES * SUBSTITUTE_STEP, SUBSTITUTE_STEP))), None)
        if entry is None:
            raise RuntimeError(f"{self.name}: none of {SUBSTITUTES} items from {index} on is sound")
        keep = self._keep
        data = keep(entry) if callable(keep) else {key: entry["metadata"][key] for key in keep}
        answer = data.pop("answer", entry["answer"])
        return Problem(self.name, index, entry["question"], answer, data)

    def score(self, problem: Problem, answer: str) -> int:
        """1 if the answer obeys the data set's rule, else 0."""
        if len(answer) > self._max_answer:
            return 0
        return int(self._rule(problem, unwrap(answer)))


# ---------------------------------------------------------------------------------------------------------------------
# Rules. Each gets the answer already stripped of white space, surrounding quotes and a final full stop.


def same_number(problem: Problem, answer: str) -> bool:
    """Equal as numbers: "12", "+12", "12.0" and "1,200" for 1200."""
    value = parse_number(answer)
    return value is not None and value == parse_number(problem.answer)


def same_text(problem: Problem, answer: str) -> bool:
    """The same characters."""
    return answer == problem.answer


def same_word_or_number(problem: Problem, answer: str) -> bool:
    """Equal numbers, or the same word in any case (Yes, Friday)."""
    return same_number(problem, answer) or answer.casefold() == problem.answer.casefold()


def same_number_list(problem: Problem, answer: str) -> bool:
    """A list in brackets of equal numbers in the same order, each quoted or not."""

    def numbers(text: str) -> list[Fraction | None]:
        return [parse_number(item) for item in split_items(text[1:-1])]

    return answer[:1] == "[" and answer[-1:] == "]" and len(answer) > 1 and numbers(answer) == numbers(problem.answer)


def same_words(problem: Problem, answer: str) -> bool:
    """The same words in the same order between commas; white space and quotes around a word do not matter."""
    return split_items(answer) == split_items(problem.answer)
