"""When a run has come apart, and what looks as if the reward were had without the task being done.

A collapse rarely mends itself, and every further step overwrites what was good: the run stops, with a line that says
why, and keeps its best checkpoint. What may be harmless is only said. All is judged by the metrics of the steps so
far, the same on every rank.
"""

import statistics
from typing import Any

from cli import UserError

PATIENCE = 3  # steps in a row
ENTROPY = (0.01, 0.05)  # nats per token, and share of the first step's: below both
KL = 10.0  # nats per token
GRADIENT = 100.0  # times the median of the steps before
WINDOW = 20  # steps
CHANGE = 0.05  # of a share that is taken for real, as a mean of RECENT steps
RECENT = 5
SHORT = 0.3  # of the length that replies had at first
WATCHED = ("accuracy", "reward", "reply_tokens", "live", "entropy", "kl", "grad_norm", "clip_fraction", "held_out")


class Guards:
    """Looks at each step's metrics. `history` is its whole state: plain JSON values."""

    def __init__(self, history: list[dict[str, Any]] | None = None):
        self.history = list(history or [])
        self.said = set(self.warnings())

    def look(self, metrics: dict[str, float]) -> list[str]:
        """Takes note of a step; returns warnings, each once. UserError where the run has collapsed."""
        self.history.append({name: metrics[name] for name in WATCHED if name in metrics})
        if reason := self.collapsed():
            raise UserError(f"stopped after step {len(self.history)}: {reason}")
        new = {text: line for text, line in self.warnings().items() if text not in self.said}
        self.said |= set(new)
        return list(new.values())

    def collapsed(self) -> str:
        """Why the run should stop; empty if it should not."""
        live = [step for step in self.history if step["live"] > 0]  # in others there was no update
        last, before = live[-PATIENCE:], live[-PATIENCE - WINDOW : -PATIENCE]
        if len(last) < PATIENCE or not before:
            return ""
        first = live[0]["entropy"]
        if all(step["entropy"] < min(ENTROPY[0], ENTROPY[1] * first) for step in last):
            return (
                f"the entropy has collapsed, from {first:.3f} nats to {last[-1]['entropy']:.4f}; replies no longer "
                "differ. Lower --learning_rate, raise --clip_high, or try --entropy_bonus"
            )
        if all(step["kl"] > KL for step in last):
            return (
                f"KL to the start has exploded, to {last[-1]['kl']:.1f} nats per token. Lower --learning_rate, or "
                "raise --kl"
            )
        usual = statistics.median(step["grad_norm"] for step in before)
        if all(step["grad_norm"] > GRADIENT * usual > 0 for step in last):
            return (
                f"the gradient norm has exploded, from {usual:.2f} to {last[-1]['grad_norm']:.1f}. Lower "
                "--learning_rate or --max_grad_norm"
            )
        return ""

    def warnings(self) -> dict[str, str]:
        """By their names, what a person should have a look at."""
        found, count = {}, len(self.history)
        if count < 2 * RECENT:
            return found

        def mean(name: str, end: int) -> float:
            return statistics.mean(step[name] for step in self.history[max(0, end - RECENT) : end])

        def rise(name: str, since: int = RECENT) -> float:
            return mean(name, count) - mean(name, since)

        if rise("reward") > CHANGE and rise("accuracy") < -CHANGE:
            found["reward"] = (
                "warning: rewards rise while fewer answers are right: the terms beside correctness pay better "
                "(--format_reward, --efficiency_penalty)"
            )
        if rise("accuracy") > CHANGE and mean("reply_tokens", count) < SHORT * mean("reply_tokens", RECENT):
            found["length"] = (
                f"warning: replies have shrunk from {mean('reply_tokens', RECENT):.0f} tokens to "
                f"{mean('reply_tokens', count):.0f} while more are right: are answers guessed, or given away?"
            )
        held_out = [(at, step["held_out"]) for at, step in enumerate(self.history, 1) if "held_out" in step]
        if held_out:
            at, best = max(held_out, key=lambda pair: pair[1])
            if held_out[-1][1] < best - CHANGE and at >= RECENT and rise("accuracy", at) > CHANGE:
                found["held out"] = (
                    f"warning: held-out accuracy has fallen from {best:.2f} to {held_out[-1][1]:.2f} while that in "
                    "training rises: the pool is learnt by heart, or the reward is had in another way"
                )
        if mean("clip_fraction", count) > 0.5:
            found["clip"] = "warning: most tokens leave their bounds: updates are too large; lower --learning_rate"
        return found
