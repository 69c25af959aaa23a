"""Letters, words and short puzzles about them, and two puzzles of digits and of water."""

import re
import string
from collections.abc import Callable, Iterator
from typing import Any

from suites.base import Problem
from suites.gym.common import Entry, GymTask, dataset, same_number, same_word_or_number, same_words
from suites.parsers import unquote, unwrap, without_brackets

# ---------------------------------------------------------------------------------------------------------------------
# The same items in every process and on every machine


class SortedSet(set[str]):
    """A set that is gone through in sorted order: an ordinary one changes its order with PYTHONHASHSEED."""

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(super().__iter__()))

    def __sub__(self, other: Any) -> "SortedSet":
        return SortedSet(super().__sub__(other))


class RepeatableTask(GymTask):
    """A data set that draws from something whose order is no part of its seed; `prepare` puts that in order."""

    def __init__(self, *args: Any, prepare: Callable[[Any], None], **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._prepare = prepare

    def make(self, seed: int) -> Entry | None:
        self._prepare(dataset(self.name))
        return super().make(seed)


def sort_letters(library: Any) -> None:
    """The library draws letters from the list of a set."""
    library.letters = SortedSet(string.ascii_lowercase)


def sort_fonts(library: Any) -> None:
    """The library draws a font from a directory listing, in the order of the file system."""
    from reasoning_gym.cognition import figlet_fonts

    figlet_fonts.OK_FONTS.sort()


# ---------------------------------------------------------------------------------------------------------------------
# Parsers


def pieces(text: str) -> list[str]:
    """The words between white space and commas, each without its quotes."""
    return [unquote(piece) for piece in re.split(r"[\s,]+", text) if piece]


def word_lists(text: str) -> list[list[str]] | None:
    """The lists of words in '[["a", "b"], ["c"]]' or in one line for each list; None for anything else.

    Quotes, the outer brackets, and commas where there is white space may be left out.
    """
    if "[" not in text and "]" not in text:
        return [pieces(line) for line in text.splitlines() if line.strip()]
    if re.match(r"\[\s*\[", text):
        if text[-1] != "]":
            return None
        text = text[1:-1]
    parts = re.split(r"\[([^\[\]]*)\]", text)  # between, inside, between, ..., inside, between
    if any(part.strip(", \t\r\n") for part in parts[::2]):
        return None
    return [pieces(part) for part in parts[1::2]]


# ---------------------------------------------------------------------------------------------------------------------
# Rules


def same_tokens(problem: Problem, answer: str) -> bool:
    """The same tokens of two characters in the same order, however they are separated."""
    return "".join(pieces(without_brackets(answer))) == "".join(pieces(problem.answer))


def same_word_order(problem: Problem, answer: str) -> bool:
    """The same words in the same order between commas; brackets around the list and quotes do not matter."""
    return same_words(problem, without_brackets(answer))


def same_sentence(problem: Problem, answer: str) -> bool:
    """The same characters, but for the length of white space and a final full stop."""
    return answer.split() == unwrap(problem.answer).split()


def same_sentence_in_any_case(problem: Problem, answer: str) -> bool:
    """The same words of capital letters, which may be written small: a cipher of capitals says nothing of case."""
    return answer.upper().split() == problem.answer.split()


def same_spelling(problem: Problem, answer: str) -> bool:
    """The same letters in any case; the question spaces them out, so the answer may."""
    return "".join(answer.split()).upper() == problem.answer.upper()


def same_groups(problem: Problem, answer: str) -> bool:
    """The same groups of words; the question leaves the order open."""
    given, groups = word_lists(answer), word_lists(problem.answer)
    return given is not None and sorted(map(sorted, given)) == sorted(map(sorted, groups or []))


def all_partitions(problem: Problem, answer: str) -> bool:
    """Every partition into palindromes once, in any order.

    The question words it as "you may return all"; one partition, such as the single letters, is not all.
    """
    given = word_lists(answer)
    return given is not None and sorted(given) == sorted(word_lists(problem.answer) or [])


def palindrome_of_the_letters(problem: Problem, answer: str) -> bool:
    """Any palindrome of exactly the letters given; the question forbids spaces and punctuation."""
    text = answer.lower()
    return answer.isascii() and text == text[::-1] and sorted(text) == sorted(problem.data["letters"])


def solves_the_sum(problem: Problem, answer: str) -> bool:
    """Any digits that make the sum true: one for each letter and no other, all different, no leading zero.

    The letters may come in any order and in any case, "A=1" or "A: 1", between commas or white space.
    """
    text = re.sub(r"[\s\"'{}]", "", answer).upper()
    if not re.fullmatch(r"(?:[A-Z][=:][0-9],?)+", text):
        return False
    pairs = re.findall(r"([A-Z])[=:]([0-9])", text)
    digits = dict(pairs)
    numbers = [*problem.data["words_letters"], problem.data["result_letters"]]
    if not len(pairs) == len(digits) == len(set(digits.values())) or digits.keys() != set("".join(numbers)):
        return False
    if any(digits[number[0]] == "0" for number in numbers):
        return False
    *addends, total = (int("".join(digits[letter] for letter in number)) for number in numbers)
    return sum(addends) == total


_MOVE = re.compile(r"(?:fill|empty)\s+[A-Z]|pour\s+[A-Z]\s*->\s*[A-Z]", re.ASCII | re.IGNORECASE)


def measures_the_target(problem: Problem, answer: str) -> bool:
    """Any moves after which a jug holds the target; the question asks neither for few moves nor for useful ones.

    A list with or without brackets and quotes, or one move in a line. Pouring a jug into itself is no move.
    """
    capacities = problem.data["capacities"]
    levels = dict.fromkeys(capacities, 0)
    for move in re.split(r"[,\n]", without_brackets(answer)):
        move = unquote(move)
        if not move:
            continue
        if not _MOVE.fullmatch(move):
            return False
        verb, jug, other = move[:4].lower(), move.split("->")[0].rstrip()[-1].upper(), move[-1].upper()
        if jug not in levels or other not in levels:
            return False
        if verb == "fill":
            levels[jug] = capacities[jug]
        elif verb == "empt":
            levels[jug] = 0
        elif jug == other:
            return False
        else:
            amount = min(levels[jug], capacities[other] - levels[other])
            levels[jug] -= amount
            levels[other] += amount
    return problem.data["target"] in levels.values()


def jugs(entry: Entry) -> dict[str, Any]:
    """What each jug holds, by its letter, and the target."""
    puzzle = entry["metadata"]["puzzle"]
    return {
        "capacities": dict(zip(string.ascii_uppercase, puzzle["jug_capacities"], strict=False)),
        "target": puzzle["target"],
    }


# ---------------------------------------------------------------------------------------------------------------------
# Items whose reference answer is not the one answer to their question


def leaves_tokens(entry: Entry) -> bool:
    """All tokens of a program can vanish (one in 250), and an empty answer cannot be told from none."""
    return bool(entry["answer"])


def only_latin_letters(entry: Entry) -> bool:
    """The one sentence with a letter beyond A to Z (AËRIAL) is enciphered to something that does not decipher."""
    return entry["answer"].isascii()


def one_code_point(entry: Entry) -> bool:
    """One emoji in 109 ends in a variation selector itself, so the question's decoder finds a byte too many."""
    return len(entry["metadata"]["emoji"]) == 1


def one_name(entry: Entry) -> bool:
    """In one text in a thousand, two people do what the question asks about."""
    act = entry["metadata"]["question"].removeprefix("Who ").removesuffix("? Reply only with a name.")
    statements = entry["question"].split("\n")[0].split(". ")
    return sum(statement.endswith(f" {act}") for statement in statements) == 1


def of_moderate_length(entry: Entry) -> bool:
    """A few strings (one in 500) have hundreds of partitions."""
    return len(entry["answer"]) <= 8000


# In these, some capital letters are blank or drawn alike (D and O, C and I); platoon2's are noise.
UNREADABLE_FONTS = {"b_m__200", "home_pak", "platoon2", "runic", "smisome1", "stencil2", "test1"}


def readable(entry: Entry) -> bool:
    """Seven of 447 fonts do not tell the letters apart."""
    return entry["metadata"]["font"] not in UNREADABLE_FONTS


# ---------------------------------------------------------------------------------------------------------------------


TASKS = [
    GymTask("ab", same_tokens, sound=leaves_tokens),
    GymTask("binary_alternation", same_number),
    GymTask("caesar_cipher", same_sentence_in_any_case, sound=only_latin_letters),
    GymTask("cryptarithm", solves_the_sum, keep=("words_letters", "result_letters")),
    GymTask("emoji_mystery", same_sentence, sound=one_code_point),
    RepeatableTask("figlet_font", same_spelling, sound=readable, prepare=sort_fonts),
    GymTask("group_anagrams", same_groups),
    RepeatableTask("isomorphic_strings", same_word_or_number, prepare=sort_letters),
    GymTask("jugs", measures_the_target, keep=jugs, max_answer=10_000),
    GymTask("needle_haystack", same_word_or_number, sound=one_name),
    GymTask("palindrome_generation", palindrome_of_the_letters, keep=("letters",)),
    GymTask("palindrome_partitioning", all_partitions, sound=of_moderate_length, max_answer=32_000),
    RepeatableTask("ransom_note", same_word_or_number, prepare=sort_letters),
    GymTask("word_sorting", same_word_order),
]
