"""BIG-Bench-Hard (Suzgun et al., 2022): 27 tasks, their questions verbatim, exact rules."""

import re

from suites.parsers import parse_number
from suites.stored import StoredTask, json_file

OPTION_TASKS = (
    "date_understanding",
    "disambiguation_qa",
    "geometric_shapes",
    "hyperbaton",
    "logical_deduction_three_objects",
    "logical_deduction_five_objects",
    "logical_deduction_seven_objects",
    "movie_recommendation",
    "penguins_in_a_table",
    "reasoning_about_colored_objects",
    "ruin_names",
    "salient_translation_error_detection",
    "snarks",
    "temporal_sequences",
    "tracking_shuffled_objects_three_objects",
    "tracking_shuffled_objects_five_objects",
    "tracking_shuffled_objects_seven_objects",
)
WORD_TASKS = (
    "boolean_expressions",
    "causal_judgement",
    "formal_fallacies",
    "navigate",
    "sports_understanding",
    "web_of_lies",
)
BRACKETS = re.compile(r"[()\[\]{}<>\s]*")


def same_option(answer: str, reference: str) -> bool:
    """The same letter: "(B)", "B", "b)". A few references are the text of the option rather than its letter."""
    letter = re.fullmatch(r"\(?([A-Za-z])\)?", answer)
    if letter and re.fullmatch(r"\([A-Z]\)", reference):
        return letter[1].upper() == reference[1]
    return answer.casefold() == reference.casefold()


def same_word(answer: str, reference: str) -> bool:
    """The same word in any case: yes, No, TRUE, invalid."""
    return answer.casefold() == reference.casefold()


def same_brackets(answer: str, reference: str) -> bool:
    """The same brackets in the same order, however spaced."""
    return BRACKETS.fullmatch(answer) is not None and answer.split() != [] and _joined(answer) == _joined(reference)


def same_integer(answer: str, reference: str) -> bool:
    """Equal numbers."""
    value = parse_number(answer)
    return value is not None and value == parse_number(reference)


def same_words(answer: str, reference: str) -> bool:
    """The same words in the same order, with spaces, commas or line breaks between them, or as a list in brackets."""
    if answer.startswith("[") and answer.endswith("]"):
        answer = answer[1:-1]
    words = [word.strip("\"'") for word in re.split(r"[\s,]+", answer.strip()) if word]
    return [word.casefold() for word in words] == reference.casefold().split()


def _joined(text: str) -> str:
    return "".join(text.split())


def _task(name: str, rule) -> StoredTask:
    def row(stored: dict) -> tuple[str, str]:
        # An answer that ends in > would run into its closing mark.
        hint = " (Write a space between the last bracket and >>>.)" if name == "dyck_languages" else ""
        return stored["input"] + hint, stored["target"].strip()

    local = json_file(f"BIG-Bench-Hard/bbh/{name}.json", "examples")
    # The name says the suite: reasoning-gym has a word_sorting too.
    return StoredTask(f"bbh_{name}", "bbh", rule, local, ("SaylorTwift/bbh", name, "test"), row)


TASKS = [
    *(_task(name, same_option) for name in OPTION_TASKS),
    *(_task(name, same_word) for name in WORD_TASKS),
    _task("dyck_languages", same_brackets),
    _task("multistep_arithmetic_two", same_integer),
    _task("object_counting", same_integer),
    _task("word_sorting", same_words),
]
