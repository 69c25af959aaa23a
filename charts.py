"""The pictures of report.py: matplotlib's SVG, in the page's own font and in colours that its style sheet decides.

What comes out is an <svg> element without a size, which fills its column. It depends on nothing but the data: no date,
and identifiers drawn from the picture's name, so that two pictures of one page do not share any.
"""

import io
import math
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from scores import wilson

# matplotlib knows no CSS variables: it draws in these, and they are replaced afterwards.
INK, MUTED, LINE, ACCENT = "#010101", "#020202", "#030303", "#040404"
CSS = {INK: "var(--ink)", MUTED: "var(--muted)", LINE: "var(--line)", ACCENT: "var(--accent)"}
FILLS = ((ACCENT, 1.0), (INK, 1.0), (ACCENT, 0.4), (MUTED, 0.35))  # of stacked parts, with their opacity
MARKS = (("o", ACCENT, "●"), ("s", INK, "■"), ("D", MUTED, "◆"), ("^", INK, "▲"), ("v", MUTED, "▼"))
LABEL_LENGTH = 26  # longer names would leave no room for the dots

PANELS = {  # name in metrics.jsonl: title, what healthy looks like (docs/metrics.md), top of the axis or 0
    "accuracy": ("Right answers", "Rises, noisily. Band: Wilson's 95 % interval over the step's problems.", 1),
    "reward": ("Reward", "The same as right answers while correctness is the only term.", 0),
    "code_use": ("Replies that ran code", "Must not fall to 0: then programs fail or never pay.", 1),
    "live": ("Replies with a signal", "0.3 to 0.8. Near 0: the problems are too easy or too hard for this model.", 1),
    "entropy": ("Entropy, nats", "Falls slowly. At 0 early: lower the learning rate.", 0),
    "reply_tokens": ("Tokens per reply", "Drifts slowly. Runaway growth ends at the length limit.", 0),
    "finish/answer": ("Gave an answer", "Nearly all. Otherwise they are too long, or stop early.", 1),
}
SECONDS = ("seconds/rollout", "seconds/update", "seconds/total", "tool_wait_seconds")


# --------------------------------------------------------------------------------------------------------------------
# drawing


def svg(figure: Figure, name: str, description: str) -> Markup:
    """The figure as markup; `name` and `description` may be any text."""
    file = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", transparent=True)
    text = file.getvalue()
    box = re.search(r'viewBox="([\d. ]+)"', text)[1]
    body = re.sub(
        r"<metadata>.*?</metadata>|<style.*?</style>", "", text[text.index(">", text.index("<svg")) + 1 :], flags=re.S
    )
    body = re.sub(r'<g id="[^"]*"', "<g", body)  # figure_1, axes_1 and the like, in every picture
    body = re.sub(r"<!--.*?-->", "", body, flags=re.S)
    body = re.sub(r" font-family: [^;\"]*;?", "", body)
    for drawn, meant in CSS.items():
        body = body.replace(drawn, meant)
    head = Markup('<svg viewBox="{}" role="img" aria-label="{}">').format(box, description)
    return head + Markup(re.sub(r"\s*\n\s*", "\n", body))


def canvas(width: float, height: float) -> tuple[Figure, Any]:
    """A figure (inches) with quiet axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelcolor=MUTED, labelsize=8)
    axes.set_axisbelow(True)
    return figure, axes


def over_steps(steps: Sequence[int], low: float, high: float, what: str) -> tuple[Figure, Any]:
    """Axes for something between `low` and `high` at every step."""
    figure, axes = canvas(3.4, 1.85)
    axes.grid(axis="y", color=LINE, linewidth=0.6)
    axes.set_xlim(steps[0] - 0.5, steps[-1] + 0.5)
    axes.set_ylim(low - 0.02 * (high - low), high + 0.02 * (high - low))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axes.set_xlabel(what, color=MUTED, fontsize=8)
    return figure, axes


def curve(
    name: str,
    steps: Sequence[int],
    values: Sequence[float],
    top: float = 0,
    band: Sequence[tuple[float, float]] = (),
    what: str = "step",
) -> Markup:
    """One value per step, from 0 to `top` (0: as high as need be); `band`: the interval (low, high) of each."""
    finite = [value for value in values if math.isfinite(value)]
    figure, axes = over_steps(steps, min([0.0, *finite]), top or 1.08 * max([1e-9, *finite]), what)
    if band:
        lows, highs = zip(*band, strict=True)
        axes.fill_between(steps, lows, highs, color=ACCENT, alpha=0.15, linewidth=0)
        axes.vlines(steps, lows, highs, color=ACCENT, alpha=0.4, linewidth=0.6)
    axes.plot(steps, values, color=ACCENT, linewidth=1.5, marker="o" if len(steps) <= 40 else "", markersize=2.6)
    ends = [f"{values[i]:.3g} at {what} {steps[i]}" for i in ((0, -1) if len(steps) > 1 else (0,))]
    return svg(figure, name, f"{name}: {', '.join(ends)}")


def stairs(name: str, steps: Sequence[int], parts: dict[str, Sequence[float]]) -> tuple[Markup, list[tuple]]:
    """Parts of a whole per step, stacked; and the legend: (part, CSS colour, opacity)."""
    sums = [sum(values) for values in zip(*parts.values(), strict=True)]
    figure, axes = over_steps(steps, 0, 1.05 * max(sums) or 1, "step")
    edges, below = [step - 0.5 for step in steps] + [steps[-1] + 0.5], [0.0] * (len(steps) + 1)
    for values, (colour, opacity) in zip(parts.values(), FILLS, strict=True):
        above = [low + value for low, value in zip(below, [*values, values[-1]], strict=True)]
        axes.fill_between(edges, below, above, step="post", color=colour, alpha=opacity, linewidth=0)
        below = above
    totals = ", ".join(f"{part} {sum(values):.3g}" for part, values in parts.items())
    legend = [(part, CSS[colour], opacity) for part, (colour, opacity) in zip(parts, FILLS, strict=True)]
    return svg(figure, name, f"{name}. Sums over all steps: {totals}"), legend


def dots(name: str, rows: Sequence[str], series: dict[str, Sequence[tuple[float, float, float]]], main: str) -> Markup:
    """A row per name and in it a dot (value, low, high) of every series; the last row stands apart. The series `main`
    has the accent."""
    figure, axes = canvas(3.8, 0.4 + 0.3 * len(rows))
    for number, (label, points) in enumerate(series.items()):
        marker, colour, _ = marks(series, main)[label]
        values, lows, highs = zip(*points, strict=True)
        places = [row + 0.24 * (number - (len(series) - 1) / 2) for row in range(len(rows))]
        axes.hlines(places, lows, highs, color=colour, linewidth=1.0, alpha=0.6)
        axes.plot(values, places, marker, color=colour, markersize=3.8)
    axes.set(xlim=(-0.02, 1.02), ylim=(len(rows) - 0.4, -0.6))
    axes.axhline(len(rows) - 1.5, color=LINE, linewidth=0.8)
    axes.grid(axis="x", color=LINE, linewidth=0.6)
    names = [row if len(row) <= LABEL_LENGTH else row[: LABEL_LENGTH - 1] + "…" for row in rows]
    axes.set_yticks(range(len(rows)), names, parse_math=False)
    last = ", ".join(f"{label} {points[-1][0]:.3f}" for label, points in series.items())
    return svg(figure, name, f"{name}. {rows[-1]}: {last}")


def marks(labels: Sequence[str], main: str) -> dict[str, tuple[str, str, str]]:
    """Marker, colour and sign of every series; nearest before `main` comes the most visible one."""
    others = [label for label in labels if label != main][::-1]
    return {main: MARKS[0]} | {label: MARKS[1 + number % (len(MARKS) - 1)] for number, label in enumerate(others)}


# --------------------------------------------------------------------------------------------------------------------
# the curves of a run


def panels(metrics: list[dict], problems: int, warm: list[dict]) -> list[dict[str, Any]]:
    """The curves. `problems` is how many a step draws (0: unknown), `warm` the lines of the warm start."""
    steps, made = [line["step"] for line in metrics], []

    def add(title: str, healthy: str, values: list[float], picture: Markup, legend=()) -> None:
        ends = [f"{value:.3g}" for value in (values[0], values[-1])][: len(values)]
        made.append({"title": title, "healthy": healthy, "ends": " → ".join(ends), "svg": picture, "legend": legend})

    for key, (title, healthy, top) in PANELS.items():
        values = [line.get(key, math.nan) for line in metrics]
        if any(map(math.isfinite, values)):
            # Siblings are no independent trials: the interval counts problems, not replies.
            band = [wilson(value * problems, problems) for value in values] if key == "accuracy" and problems else ()
            add(title, healthy, values, curve(title, steps, values, top, band))
    if all(name in line for line in metrics for name in SECONDS):
        title, healthy = "Seconds per step", "Hardly any waiting: the interpreter keeps up with the model."
        parts = time_split(metrics)
        add(title, healthy, list(map(sum, zip(*parts.values(), strict=True))), *stairs(title, steps, parts))
    if warm:
        title, healthy = "Warm start: loss, nats", "Falls fast, then slowly. Below 0.1 it memorises its data."
        losses = [line["loss"] for line in warm]
        add(title, healthy, losses, curve(title, [line["step"] for line in warm], losses, what="update"))
    return made


def time_split(metrics: list[dict[str, float]]) -> dict[str, list[float]]:
    """Seconds of every step by what they went into."""
    parts: dict[str, list[float]] = {"generating": [], "waiting for programs": [], "update": [], "rest": []}
    for before, line in pairwise([{"seconds/total": 0.0}, *metrics]):
        rollout, update, total, waiting = (line[name] for name in SECONDS)
        rest = max(0.0, total - before["seconds/total"] - rollout - update)
        for part, seconds in zip(parts.values(), (max(0.0, rollout - waiting), waiting, update, rest), strict=True):
            part.append(seconds)
    return parts
