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
STROKES = tuple((colour, style) for style in ("-", "--", ":") for colour in (ACCENT, INK, MUTED))  # of runs
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
    "held_out": ("Held-out problems right, sampled", "Rises with the right answers. Stays behind: learnt by heart.", 1),
    "kl": ("KL to the start, nats", "Grows slowly. An explosion is the end of the run.", 0),
    "stage": ("Curriculum stage", "Each adds the problems of one more group.", 4),
}
ABSENT_IF_ZERO = ("kl",)  # logged in every run, measured only where it has a coefficient
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


def curves(
    name: str, series: dict[str, tuple[Sequence[float], Sequence[float]]], strokes: dict, top: float, what: str
) -> Markup:
    """Several runs in one picture: (places, values) of each, with its stroke (see `STROKES`)."""
    finite = [value for _, values in series.values() for value in values if math.isfinite(value)]
    ends = [place for places, _ in series.values() for place in (places[0], places[-1])]
    figure, axes = over_steps((min(ends), max(ends)), min([0.0, *finite]), top or 1.08 * max([1e-9, *finite]), what)
    for label, (places, values) in series.items():
        colour, style = strokes[label]
        axes.plot(places, values, color=colour, linestyle=style, linewidth=1.4)
    said = ", ".join(f"{label} {values[-1]:.3g}" for label, (_, values) in series.items())
    return svg(figure, name, f"{name}, at the end: {said}")


def histogram(name: str, values: dict[str, Sequence[float]], what: str, bins: int = 12) -> tuple[Markup, list[tuple]]:
    """How two or three sets of whole numbers are distributed, as shares of each set; and the legend."""
    low, high = (edge(edge(numbers) for numbers in values.values()) for edge in (min, max))
    width = max(1, math.ceil((high - low + 1) / bins))
    edges = [low + i * width for i in range((high - low) // width + 2)]
    figure, axes = canvas(3.4, 1.85)
    axes.grid(axis="y", color=LINE, linewidth=0.6)
    part = 0.9 / len(values)
    for number, (numbers, (colour, opacity)) in enumerate(zip(values.values(), FILLS, strict=False)):
        counts = [sum(a <= n < b for n in numbers) / len(numbers) for a, b in pairwise(edges)]
        places = [i + part * (number - (len(values) - 1) / 2) for i in range(len(counts))]
        axes.bar(places, counts, part, color=colour, alpha=opacity, linewidth=0)
    labels = [f"{a}" for a in edges[:-1]]  # where each bin begins
    every = math.ceil(len(labels) / 6)
    axes.set_xticks(range(0, len(labels), every), labels[::every])
    axes.set_xlabel(what if width == 1 else f"{what}, from", color=MUTED, fontsize=8)
    means = ", ".join(f"{label} {sum(numbers) / len(numbers):.3g}" for label, numbers in values.items())
    legend = [(label, CSS[colour], opacity) for label, (colour, opacity) in zip(values, FILLS, strict=False)]
    return svg(figure, name, f"{name}; means: {means}"), legend


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


def panels(
    metrics: list[dict], problems: int, warm: list[dict], replies: dict[str, dict[str, list[int]]] | None = None
) -> list[dict[str, Any]]:
    """The curves. `problems` is how many a step draws (0: unknown), `warm` the lines of the warm start, `replies` the
    numbers of programs and of tokens of the replies of some steps, by the name of the step."""
    steps, made = [line["step"] for line in metrics], []

    def add(title: str, healthy: str, values: list[float], picture: Markup, legend=()) -> None:
        ends = [f"{value:.3g}" for value in (values[0], values[-1])][: len(values)]
        made.append({"title": title, "healthy": healthy, "ends": " → ".join(ends), "svg": picture, "legend": legend})

    for key, (title, healthy, top) in PANELS.items():
        values = [line.get(key, math.nan) for line in metrics]
        if any(map(math.isfinite, values)) and (key not in ABSENT_IF_ZERO or any(values)):
            # Siblings are no independent trials: the interval counts problems, not replies.
            band = [wilson(value * problems, problems) for value in values] if key == "accuracy" and problems else ()
            add(title, healthy, values, curve(title, steps, values, top, band))
    if all(name in line for line in metrics for name in SECONDS):
        title, healthy = "Seconds per step", "Hardly any waiting: the interpreter keeps up with the model."
        parts = time_split(metrics)
        add(title, healthy, list(map(sum, zip(*parts.values(), strict=True))), *stairs(title, steps, parts))
    for key, title, healthy, what in (
        ("programs", "Programs per reply", "Most need one to three. All at the limit: it repeats itself.", "programs"),
        ("tokens", "Tokens per reply, spread", "A heap at the limit is cut short: raise --max_reply_tokens.", "tokens"),
    ):
        if replies:
            values = {step: numbers[key] for step, numbers in replies.items()}
            means = [sum(numbers) / len(numbers) for numbers in values.values()]
            add(title, healthy, [means[0], means[-1]], *histogram(title, values, what))
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
