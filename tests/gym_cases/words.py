"""Letters, words and short puzzles about them, and two puzzles of digits and of water."""

import json
import re

from suites.base import Problem
from tests.gym_cases import Case


def lists_right(problem: Problem) -> list[str]:
    lists = json.loads(problem.answer)
    return [
        problem.answer.replace('"', "'"),
        problem.answer.replace('"', ""),
        problem.answer.replace(" ", ""),
        json.dumps(lists, indent=2),
        json.dumps(lists[::-1]),
        ",\n".join(json.dumps(row) for row in lists),
        "\n".join(", ".join(row) for row in lists),
        "\n".join(" ".join(row) for row in lists),
    ]


def lists_wrong(problem: Problem) -> list[str]:
    lists = json.loads(problem.answer)
    wrong = [
        lists[1:],
        [*lists, lists[-1]],
        [*lists, ["x"]],
        [[*lists[0], "x"], *lists[1:]],
        [lists[0][:-1], *lists[1:]],
        [[word for row in lists for word in row] * 2],
        lists[0],
    ]
    if len(lists) > 1:
        wrong += [lists[:1], [lists[0] + lists[1], *lists[2:]]]
    texts = [json.dumps(answer) for answer in wrong if answer != lists and [answer] != lists]
    return [*texts, problem.answer[:-1], problem.answer[:-2] + "]", problem.answer + "]"]


def groups_right(problem: Problem) -> list[str]:
    return [*lists_right(problem), json.dumps([group[::-1] for group in json.loads(problem.answer)[::-1]])]


def groups_wrong(problem: Problem) -> list[str]:
    first, second, *rest = json.loads(problem.answer)
    swapped = [[second[0], *first[1:]], [first[0], *second[1:]], *rest]
    return [*lists_wrong(problem), json.dumps(swapped), json.dumps([first[1:], [*second, first[0]], *rest])]


def partitions_wrong(problem: Problem) -> list[str]:
    lists = json.loads(problem.answer)
    reversed_words = [row[::-1] for row in lists]
    different = sorted(reversed_words) != sorted(lists)
    return [*lists_wrong(problem), *([json.dumps(reversed_words)] if different else [])]


def tokens_right(problem: Problem) -> list[str]:
    tokens = problem.answer.split()
    return ["".join(tokens), ", ".join(tokens), json.dumps(tokens), "\n".join(tokens)]


def tokens_wrong(problem: Problem) -> list[str]:
    tokens = problem.answer.split()
    wrong = [tokens[1:], tokens[:-1], [*tokens, "A#"], ["#B", *tokens], tokens[::-1], [tokens[0][::-1], *tokens[1:]]]
    return [" ".join(answer) for answer in wrong if answer != tokens] + [problem.answer.lower()]


def sorting_right(problem: Problem) -> list[str]:
    words = problem.answer.split(", ")
    return [",".join(words), ",\n".join(words), json.dumps(words, ensure_ascii=False), str(words)]


def sorting_wrong(problem: Problem) -> list[str]:
    words = problem.answer.split(", ")
    wrong = [words[1:], words[:-1], words[::-1], [*words, words[-1]], [words[1], words[0], *words[2:]]]
    wrong.append([words[0].swapcase(), *words[1:]] if words[0].swapcase() != words[0] else words[1:])
    return [", ".join(answer) for answer in wrong]


def sentence_wrong(problem: Problem) -> list[str]:
    words = problem.answer.split()
    return [
        " ".join(words[1:]),
        " ".join(words[:-1]),
        "".join(words),
        problem.answer[1:],
        problem.answer[:-2],
        problem.answer + "?",
        "x" + problem.answer,
    ]


def palindrome_right(problem: Problem) -> list[str]:
    text = problem.answer
    half, middle = text[: len(text) // 2], text[len(text) // 2 : (len(text) + 1) // 2]
    return [
        text.upper(),
        half[::-1] + middle + half,
        f"'{''.join(sorted(half)) + middle + ''.join(sorted(half)[::-1])}'",
    ]


def palindrome_wrong(problem: Problem) -> list[str]:
    text = problem.answer
    wrong = [" ".join(text), text[1:-1], text[: len(text) // 2], "x" + text + "x", text + text, f"{text}, {text}"]
    return wrong + [other for other in (text[1:] + text[0], "".join(sorted(text))) if other != other[::-1]]


def spelling_wrong(problem: Problem) -> list[str]:
    word = problem.answer
    wrong = [word[:-1], word[1:], word + "S", word[0] + word, word[:-1] + chr(ord(word[-1]) ^ 3), word[1:] + word[0]]
    return [other for other in wrong if other != word] + [f"{word}, {word}", "-".join(word)]


def name_wrong(problem: Problem) -> list[str]:
    names = {statement.split()[0] for statement in problem.question.split("\n")[0].split(". ") if statement}
    act = problem.question.split("\nWho ")[1].split("?")[0]
    others = sorted(names - {problem.answer})[:3]
    return [
        *others,
        problem.answer[:-1],
        problem.answer + "n",
        f"{problem.answer} {act}",
        f"{problem.answer}, {others[0]}",
    ]


def mapping_right(problem: Problem) -> list[str]:
    pairs = [pair.split("=") for pair in problem.answer.split(",")]
    return [
        ", ".join(f"{letter} = {digit}" for letter, digit in pairs),
        ",".join(problem.answer.split(",")[::-1]),
        "\n".join(problem.answer.split(",")),
        " ".join(problem.answer.split(",")),
        json.dumps({letter: int(digit) for letter, digit in pairs}),
        str({letter: int(digit) for letter, digit in pairs}),
        problem.answer.lower(),
    ]


def mapping_wrong(problem: Problem) -> list[str]:
    pairs = problem.answer.split(",")
    letters, digits = [pair[0] for pair in pairs], [pair[-1] for pair in pairs]
    unused = next(letter for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if letter not in letters)
    wrong = [
        ",".join(pairs[1:]),
        ",".join([*pairs, pairs[0]]),
        ",".join([*pairs, f"{unused}=0"]),
        ",".join([f"{letters[0]}={digits[1]}", *pairs[1:]]),
        ",".join([f"{letters[0]}=1{digits[0]}", *pairs[1:]]),
        ",".join([f"{unused}={digits[0]}", *pairs[1:]]),
        ",".join(digits),
    ]
    for i in range(1, len(pairs)):  # two digits swapped: wrong unless that happens to solve the sum as well
        swapped = [digits[i], *digits[1:i], digits[0], *digits[i + 1 :]]
        table = str.maketrans("".join(letters), "".join(swapped))
        *addends, total = re.findall(r"[A-Z]{3,}", problem.question)
        if sum(int(addend.translate(table)) for addend in addends) != int(total.translate(table)):
            wrong.append(",".join(f"{letter}={digit}" for letter, digit in zip(letters, swapped, strict=True)))
    return wrong


def moves_right(problem: Problem) -> list[str]:
    moves = json.loads(problem.answer)
    return [
        "\n".join(moves),
        ", ".join(moves),
        str(moves),
        json.dumps(moves, indent=1),
        problem.answer.replace("->", " -> "),
        problem.answer.upper(),
        json.dumps(["fill C", "fill C", "pour C->A", "empty A", "empty C", "empty B", *moves]),
    ]


def moves_wrong(problem: Problem) -> list[str]:
    moves = json.loads(problem.answer)
    wrong = [
        moves[:-1],  # the reference is of the shortest, so no jug holds the target any earlier
        [*moves, "empty A", "empty B", "empty C"],
        [*moves, "fill D"],
        [*moves, "pour A->D"],
        [*moves, "pour A->A"],
        [*moves, "stop"],
        [*moves, f"fill {problem.data['target']}"],
        [move.replace("->", " ") for move in moves],
    ]
    return [*map(json.dumps, wrong), problem.answer[:-1], " ".join(moves), f"{problem.data['target']}"]


def truth_wrong(problem: Problem) -> list[str]:
    return ["True" if problem.answer == "False" else "False", problem.answer[:-1], "True or False", "1", "0", "yes"]


TRUTH = Case(lambda p: [p.answer.lower(), p.answer.upper()], truth_wrong)
CASES = {
    "ab": Case(tokens_right, tokens_wrong),
    "binary_alternation": Case(
        lambda p: [f"{p.answer}.0", f" {p.answer} "],
        lambda p: [str(int(p.answer) + 1), str(int(p.answer) - 1), p.answer + "1", f"{p.answer} swaps", "impossible"],
    ),
    "caesar_cipher": Case(lambda p: [p.answer.lower(), p.answer.replace(" ", "  "), p.answer + "."], sentence_wrong),
    "cryptarithm": Case(mapping_right, mapping_wrong),
    "emoji_mystery": Case(
        lambda p: [p.answer.replace(" ", "\n"), *([] if '"' in p.answer else [f'"{p.answer}"'])],
        lambda p: [*sentence_wrong(p), p.answer.swapcase()],
    ),
    "figlet_font": Case(lambda p: [p.answer.lower(), p.answer.title(), " ".join(p.answer)], spelling_wrong),
    "group_anagrams": Case(groups_right, groups_wrong),
    "isomorphic_strings": TRUTH,
    "jugs": Case(moves_right, moves_wrong),
    "needle_haystack": Case(lambda p: [p.answer.lower(), p.answer.upper(), p.answer + "."], name_wrong),
    "palindrome_generation": Case(palindrome_right, palindrome_wrong),
    "palindrome_partitioning": Case(lists_right, partitions_wrong),
    "ransom_note": TRUTH,
    "word_sorting": Case(sorting_right, sorting_wrong),
}
