"""Games of cards."""

import string
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

from suites.parsers import parse_number, symbols, unwrap
from suites.symbench.common import Data, Puzzle, Sample, numbered, stored_samples

FAULTY = {
    "mahjong_pattern_dataset/sample_168": "with U and V in the hand, W completes a sequence: Chi (2), not Pass (0)",
}

# ---------------------------------------------------------------------------------------------------------------------
# Mahjong


PASS, PENG, CHI = range(3)
SEQUENCES = [string.ascii_uppercase[start : start + 3] for start in range(24)]


class MahjongPattern(Puzzle):
    """Whether the last card that comes to a changing hand makes a triplet, a sequence, or nothing."""

    name, kind = "mahjong_pattern", "equal number"
    levels = ((1, False), (2, False), (3, True), (4, True), (5, True))  # rounds, and whether there is Chi

    def make(self, random: Random, level: tuple[int, bool]) -> Data:
        rounds, chi = level
        wanted = random.choice((PASS, PENG, CHI) if chi else (PASS, PENG))
        while True:
            first = random.choices(string.ascii_uppercase, k=13)
            hand, changes = [*first], []
            for _ in range(rounds - 1):
                added = random.choice(string.ascii_uppercase)
                hand.append(added)
                changes.append([added, hand.pop(random.randrange(len(hand)))])
            cards = [card for card in string.ascii_uppercase if self._result(hand, card, chi) == wanted]
            # Where the first hand would give another result, the changes cannot be left out of account.
            changed = [card for card in cards if self._result(first, card, chi) != wanted]
            if cards := random.choice((cards, changed or cards)):
                return {"hand": "".join(first), "changes": changes, "last": random.choice(cards), "chi": chi}

    def ask(self, data: Data) -> str:
        rounds = [f"Round {i}: {added} comes, {gone} goes." for i, (added, gone) in enumerate(data["changes"], 1)]
        rounds.append(f"Round {len(rounds) + 1}: {data['last']} comes.")
        results = ["- Peng (1): the hand already holds two or more cards that are the same as the new one."]
        if data["chi"]:
            results.append(
                "- Chi (2): it is not Peng, but two cards of the hand and the new one are three letters that follow "
                "each other directly in the alphabet, like A, B, C. The new card may be the first, the middle or the "
                "last of them. No letter follows Z."
            )
        results.append("- Pass (0): everything else.")
        return (
            "You hold 13 cards with one character on each. In every round a new card comes to your hand, and the round "
            "gets its result. Then one card goes, maybe the new one; this has nothing to do with the result of the "
            "round. The results are:\n\n" + "\n".join(results) + "\n\nAt the beginning you hold these cards:\n\n"
            f"{data['hand']}\n\n" + "\n".join(rounds) + "\n\n"
            "What is the result of the last round? Return its number in the format <<<number>>>: "
            + ("<<<0>>>, <<<1>>> or <<<2>>>." if data["chi"] else "<<<0>>> or <<<1>>>.")
        )

    def check(self, data: Data, answer: str) -> bool:
        return parse_number(unwrap(answer)) == self._last_result(data)

    def solve(self, data: Data) -> str:
        return str(self._last_result(data))

    def _last_result(self, data: Data) -> int:
        hand = list(data["hand"])
        for added, gone in data["changes"]:
            hand.append(added)
            hand.remove(gone)
        return self._result(hand, data["last"], data["chi"])

    @staticmethod
    def _result(hand: Sequence[str], new: str, chi: bool) -> int:
        if hand.count(new) >= 2:
            return PENG
        completed = any(new in cards and all(card in hand for card in cards if card != new) for cards in SEQUENCES)
        return CHI if chi and completed else PASS

    def published(self, folder: Path) -> Iterator[Sample]:
        for path, question, solution in stored_samples(folder, "mahjong_pattern_dataset"):
            *changes, last = solution["rounds"]
            data = {
                "hand": solution["initial_cards"],
                "changes": [[change["add"], change["remove"]] for change in changes],
                "last": last["add"],
                "chi": "Chi" in question,
            }
            yield Sample(path, data, str(solution["solution"]))


# ---------------------------------------------------------------------------------------------------------------------
# The opponent's cards


class Game(NamedTuple):
    """A game of two players who play a card each: the rules in words, and for each card of one's own the cards of the
    opponent against which it wins and loses."""

    rules: str
    wins: Mapping[str, str]
    losses: Mapping[str, str]

    def result(self, own: str, other: str) -> str:
        if other in self.wins[own]:
            return "win"
        return "loss" if other in self.losses[own] else "draw"


def _beaten_by(wins: Mapping[str, str]) -> dict[str, str]:
    return {card: "".join(other for other in wins if card in wins[other]) for card in wins}


STICK = dict(zip("ABCD", "BCDA", strict=True))
ANIMALS = {card: "ABCDEFGH"[i:] for i, card in enumerate("ABCDEFG", 1)} | {"A": "BCDEFG", "H": "A"}
GAMES = {
    "stick_game": Game(
        "The cards are A (stick), B (tiger), C (chicken) and D (worm). A beats B, B beats C, C beats D, and D beats A: "
        "the player of the card that beats the other one wins. Two equal cards, A against C, and B against D are a "
        "draw.",
        wins=STICK,
        losses=_beaten_by(STICK),
    ),
    # The published results follow from what one's own card does to the other one, and not the other way round.
    "elements": Game(
        "The cards are A (wood), B (fire), C (earth), D (metal) and E (water). A generates B, B generates C, C "
        "generates D, D generates E, and E generates A. A overcomes C, C overcomes E, E overcomes B, B overcomes D, "
        "and D overcomes A. The result depends only on what your card does to the opponent's: you win if it overcomes "
        "the opponent's card, and lose if it generates the opponent's card. Everything else is a draw, even if the "
        "opponent's card generates or overcomes yours.",
        wins=dict(zip("ACEBD", "CEBDA", strict=True)),
        losses=dict(zip("ABCDE", "BCDEA", strict=True)),
    ),
    "animal": Game(
        "The cards are, from the strongest to the weakest, A (elephant), B (lion), C (tiger), D (leopard), E (wolf), F "
        "(dog), G (cat) and H (mouse). The stronger animal wins, with one exception: the mouse (H) wins against the "
        "elephant (A). Two equal animals are a draw.",
        wins=ANIMALS,
        losses=_beaten_by(ANIMALS),
    ),
}


class ConstrainedLinearArrangement(Puzzle):
    """Which cards an opponent may have played, from one's own cards and the results of the rounds."""

    name, kind = "constrained_linear_arrangement", "results, each card once"
    # game, rounds
    levels = (
        ("elements", 3),
        ("animal", 3),
        ("stick_game", 4),
        ("elements", 4),
        ("animal", 4),
        ("elements", 5),
        ("animal", 5),
    )

    def make(self, random: Random, level: tuple[str, int]) -> Data:
        name, rounds = level
        game = GAMES[name]
        own, others = (random.sample(list(game.wins), rounds) for _ in range(2))
        return {"game": name, "own": "".join(own), "results": list(map(game.result, own, others))}

    def ask(self, data: Data) -> str:
        rounds = [f"{own}: {result}" for own, result in zip(data["own"], data["results"], strict=True)]
        return (
            "You and an opponent have the same cards. In each round both of you play one card at the same time; nobody "
            f"may play the same card twice. {GAMES[data['game']].rules}\n\n"
            "These are the cards that you played in each round, and the result of the round for you:\n\n"
            f"{numbered(rounds)}\n\n"
            "Which cards may the opponent have played? If several answers are possible, give any one of them. Return "
            "the letters of the opponent's cards in the order of the rounds, in the format <<<card, card, ...>>>, for "
            "example <<<B, A>>> if there were only two rounds."
        )

    def check(self, data: Data, answer: str) -> bool:
        cards = symbols(answer)
        result = GAMES[data["game"]].result
        return (
            len(cards) == len(set(cards)) == len(data["own"])
            and set(cards) <= GAMES[data["game"]].wins.keys()
            and list(map(result, data["own"], cards)) == data["results"]
        )

    def solve(self, data: Data) -> str:
        return ", ".join(next(self._possible(data, "")))

    def _possible(self, data: Data, cards: str) -> Iterator[str]:
        """All that the opponent may have played, if these were the first cards."""
        if len(cards) == len(data["own"]):
            yield cards
            return
        game = GAMES[data["game"]]
        for card in game.wins:
            own, result = data["own"][len(cards)], data["results"][len(cards)]
            if card not in cards and game.result(own, card) == result:
                yield from self._possible(data, cards + card)

    def published(self, folder: Path) -> Iterator[Sample]:
        for path, _, solution in stored_samples(folder, "constrained_linear_arrangement"):
            data = {
                "game": solution["game_type"],
                "own": "".join(solution["player_moves"]),
                "results": solution["results"],
            }
            yield Sample(path, data, ", ".join(solution["solution"]))


TASKS = [MahjongPattern(), ConstrainedLinearArrangement()]
