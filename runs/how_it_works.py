"""Writes docs/how-it-works.md: one real step of GRPO, on one problem, with every number on the way.

    python sft.py && python runs/how_it_works.py          takes the embedded default's warm start
    python runs/how_it_works.py --links                   only brings the links to lines of code up to date

The step is the real one: the functions that grpo.py calls, in its order, on a group of four.
"""

import argparse
import re
import sys
import textwrap
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cli import ROOT, UserError, run_main
from grpo import GRPOArguments, judge, loss_mask
from loss import Tokens, policy_loss, token_weights
from rollout import Episode, Rollout, prompt_tokens
from sampling import sampling_key, uniforms
from tasks import problems
from training import Packed, Policy, log_probs_of, score_packed, start_processes

PAGE = ROOT / "docs/how-it-works.md"
LINK = re.compile(r"\[`([\w.]+)`\]\(\.\./(\w+\.py)#L\d+\)")
SHOWN = 14  # tokens in a table


# --------------------------------------------------------------------------------------------------------------------
# links


def line_of(file: str, name: str) -> int:
    """The line that defines `name`, or `Class.name`, in a file; UserError if none does."""
    lines, at = (ROOT / file).read_text(encoding="utf-8").splitlines(), 0
    for part in name.split("."):
        defining = re.compile(rf"\s*(def|class) {part}\b|{part}( =|:)")
        at = next((i for i in range(at, len(lines)) if defining.match(lines[i])), None)
        if at is None:
            raise UserError(f"{file} does not define {name}")
    return at + 1


def link(file: str, name: str) -> str:
    return f"[`{name}`](../{file}#L{line_of(file, name)})"


def linked(page: str) -> str:
    """The page with every link at the line where its name is defined now."""
    return LINK.sub(lambda match: link(match[2], match[1]), page)


# --------------------------------------------------------------------------------------------------------------------
# pieces


def quoted(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.strip("\n").splitlines())


def cell(text: str) -> str:
    """A token as a cell of a table."""
    return f"`{text}`".replace("\n", "\\n").replace("|", "\\|") if "`" not in text else f"`` {text} ``"


def table(head: list[str], rows: list[list]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(value) for value in line) + " |" for line in lines)


def telling(rollout: Rollout, arguments: GRPOArguments) -> list[Episode]:
    """The first group of four with right and wrong answers, one of which has repaired a program."""
    for problem in problems("gcd", "rl", 60):
        episodes, _ = rollout([problem], arguments.group_size)
        failed = any(turn.result and turn.result.status == "error" for e in episodes if e.correct for turn in e.turns)
        if failed and len({episode.correct for episode in episodes}) == 2:
            return episodes
    raise UserError("no group of this checkpoint shows what the page is about: is it the embedded default's?")


def wrapped(page: str) -> str:
    """Paragraphs filled anew, tables and quotations as they are."""
    blocks = re.sub(r"[ \t]+$", "", page, flags=re.M).strip().split("\n\n")
    plain = {"width": 120, "break_long_words": False, "break_on_hyphens": False}
    return "\n\n".join(b if b[0] in "|# " else textwrap.fill(b, **plain) for b in blocks) + "\n"


def token_rows(tokenizer, episode: Episode, columns: dict[str, Tensor], start: int, count: int) -> list[list]:
    return [
        [at, cell(tokenizer.decode(episode.tokens[at])), *(f"{values[at]:.4f}" for values in columns.values())]
        for at in range(start, min(start + count, len(episode.tokens)))
    ]


# --------------------------------------------------------------------------------------------------------------------
# the page


def written(checkpoint: str) -> str:
    """The page, for the warm start in this folder."""
    start_processes()
    torch.set_num_threads(1)
    arguments = GRPOArguments(model=checkpoint, group_size=4, prompts_per_step=1, steps=1)
    policy = Policy(checkpoint, arguments.learning_rate)
    bundle, model = policy.bundle, policy.model
    tokenizer = bundle.tokenizer
    with arguments.executor() as executor:
        rollout = Rollout(bundle, executor, arguments, arguments.seed)
        episodes = telling(rollout, arguments)
    live = judge(episodes, arguments, 0)
    shown = next(
        e for e in episodes if e.correct and any(t.result and t.result.status == "error" for t in e.turns)
    )  # fmt: skip
    problem, turn = shown.problem, shown.turns[0]
    prompt = prompt_tokens(tokenizer, problem.question, rollout.style)

    # sampling of one token, done again by hand
    at = next(i for i in range(turn.start, turn.end) if shown.logprobs[i] < -0.3)
    key = sampling_key(arguments.seed, shown.step, shown.id)
    document = [(shown.tokens, loss_mask(shown, True))]
    packed = Packed(document)
    with torch.no_grad():
        logits = model.logits(model(packed.tokens, packed.positions, packed.attend))[at - 1]
    probabilities = logits.softmax(-1)
    uniform = float(uniforms(torch.tensor([key]), torch.tensor([at])))
    cdf = probabilities.cumsum(-1, dtype=torch.float64)
    taken = int(shown.tokens[at])
    assert int(torch.searchsorted(cdf, uniform * cdf[-1:], right=True)) == taken
    likely = probabilities.topk(4).indices.tolist()
    likely = sorted({*likely, taken})
    choices = table(
        ["token", "probability", "cumulated from", "to", ""],
        [
            [
                cell(tokenizer.decode([i])), f"{probabilities[i]:.4f}", f"{cdf[i] - probabilities[i]:.4f}",
                f"{cdf[i]:.4f}", "taken" if i == taken else "",
            ]
            for i in likely
        ],
    )  # fmt: skip

    # the update, as grpo.update does it, with one update for all
    masks = [loss_mask(episode, True) for episode in live]
    documents = [(episode.tokens, mask) for episode, mask in zip(live, masks, strict=True)]
    counts = [int(mask.sum()) for mask in masks]
    weights = token_weights(counts, arguments.aggregation, arguments.max_reply_tokens)
    packed = Packed(documents)
    log_probs, entropy = score_packed(model, packed)
    advantages = torch.tensor([episode.advantage for episode in live])[packed.owner]
    sampler = torch.cat([episode.logprobs[mask] for episode, mask in zip(live, masks, strict=True)])
    gap = float((log_probs.detach() - sampler).abs().max())
    seen = Tokens(log_probs, log_probs.detach(), advantages, packed.owner, entropy, sampler)
    per_token, _ = policy_loss(seen, arguments)
    total = (torch.tensor(weights)[packed.owner] * per_token).sum()
    total.backward()
    mine = live.index(shown)
    norm = policy.step(arguments.learning_rate, arguments.max_grad_norm)
    after = log_probs_of(model, documents, arguments.micro_batch_tokens)
    before = log_probs.detach().split(counts)
    moved = [
        [
            f"{e.id}", "right" if e.correct else "wrong", f"{e.advantage:+.4f}", n, f"{float(old.sum()):.3f}",
            f"{float(new.sum()):.3f}", f"{float(new.sum() - old.sum()):+.3f}",
        ]
        for e, n, old, new in zip(live, counts, before, after, strict=True)
    ]  # fmt: skip
    ratios = (after[mine] - before[mine]).exp()
    outside = int(((ratios > 1 + arguments.clip_high) | (ratios < 1 - arguments.clip_low)).sum())

    group = table(
        ["episode", "answer", "verdict", "programs", "tokens written", "finish", "reward", "advantage"],
        [
            [
                e.id, f"`{e.answer}`", "right" if e.correct else "wrong", e.code_runs, int(e.sampled.sum()), e.finish,
                f"{e.reward:.0f}", f"{e.advantage:+.4f}",
            ]
            for e in episodes
        ],
    )  # fmt: skip
    rewards = torch.tensor([e.reward for e in episodes])
    whole = {"log-prob": shown.logprobs, "carries loss": shown.sampled.float()}
    seam = turn.end - 3
    tokens_shown = table(
        ["position", "token", *whole],
        [[*row[:-1], "yes" if row[-1] == "1.0000" else ""] for row in token_rows(tokenizer, shown, whole, seam, SHOWN)],
    )
    programs = [t for t in shown.turns if t.result is not None]
    runs = table(
        ["program", "status", "exit code", "wall ms", "CPU ms"],
        [
            [i, t.result.status, t.result.exit_code, f"{1000 * t.result.wall_s:.0f}", f"{1000 * t.result.cpu_s:.0f}"]
            for i, t in enumerate(programs, 1)
        ],
    )
    reply = "".join(s["text"] for s in shown.segments(tokenizer) if s["source"] != "prompt")
    parameters = sum(p.numel() for p in model.parameters())
    shares = ", ".join(f"{count} of {e.id}" for e, count in zip(live, counts, strict=True))
    mean, std = float(rewards.mean()), float(rewards.std())
    return wrapped(f"""
# How it works: one problem's way from text to gradient

Written by `python runs/how_it_works.py`: every number is of one real step, of the embedded model
({parameters / 1e6:.1f} million parameters) after its warm start, on one problem with a group of {len(episodes)}. Names
are links to their code.

## 1. A problem becomes a prompt

{link("tasks.py", "problems")} makes problem {problem.index} of the task `gcd`. The index is a seed: the same one gives
the same problem everywhere, and warm start, RL and tests draw from different ranges.

{quoted(problem.question)}

{link("rollout.py", "prompt_tokens")} puts it into the model's own chat template, behind the instruction of the prompt
style (this model's is `{rollout.style}`, which adds nothing; a language model's is `free`: when and how to write code,
and where to put the answer). The template's text becomes {len(prompt)} tokens, of which the last ones open the reply:

{quoted(repr(tokenizer.decode(prompt[-12:])))}

## 2. The model writes, one token at a time

{link("generator.py", "Generator")} runs the prompt once and copies its keys and values to {len(episodes)} slots; then
every forward pass adds a token to each. {link("sampling.py", "sample")} takes a token by inverse CDF: the first whose
cumulated probability exceeds a uniform number. That number is a hash of (seed {arguments.seed}, step {shown.step},
episode {shown.id}, position): it does not depend on who else is in the batch, so an episode can be replayed alone. At
position {at} it is {uniform:.4f}:

{choices}

What the generator keeps of it is the token's number, and its log-prob, {shown.logprobs[at]:.4f}. Nothing sampled is
ever decoded and encoded again: another tokenization of the same text would be something that the model has not chosen.

## 3. Programs are run

Tokens that contain a back-tick or `>` are looked at (a mask over the vocabulary says which), and
{link("rollout.py", "Protocol")} reads the text since the last turn. Where it closes a Python block the episode is
parked, with its keys and values in their slot, while {link("executor.py", "Executor")} runs the program in a sandbox, a
fresh process each. What it printed is appended behind `Code Execution Results:`, and the model goes on in the same
turn. Episode {shown.id} came to be:

{quoted(reply)}

{runs}

Model and interpreter wrote alternately. Only what the model wrote may carry loss: trained on the rest, it would learn
to make results up. The seam between the first program and its result:

{tokens_shown}

## 4. An answer is judged

The first closed `<<<...>>>` outside of code ends the reply; {link("tasks.py", "is_right")} compares `{shown.answer}`
with what the task accepts (here the number {problem.answer}), exactly. The reward is 1 or 0. The whole group:

{group}

## 5. Rewards become advantages

{link("loss.py", "group_advantages")}: what an episode is worth is how it compares with its siblings. Their mean reward
is {mean:.4f}, their (unbiased) standard deviation {std:.4f}; a right answer gets (1 - {mean:.4f}) / {std:.4f} =
{(1 - mean) / std:+.4f}, a wrong one {-mean / std:+.4f}. Had all been right or all wrong, the group would have nothing
to say, and would leave the batch ({link("loss.py", "live_groups")}).

## 6. The trainer scores the same tokens

All episodes are packed one behind the other, {len(packed.tokens)} tokens, and attention keeps them apart
({link("training.py", "Packed")}). One forward pass gives the log-prob of each of the {len(log_probs)} tokens that carry
loss ({shares}), from chunks of rows, never all logits at once ({link("training.py", "score")}). The generator had
computed them token by token, out of its cache; the largest difference is {gap:.1e}. Were it larger than rounding,
nothing learned could be trusted: it is logged at every step.

## 7. The loss of a token

{link("loss.py", "policy_loss")}, with A the advantage of the token's episode, and r its probability now divided by that
before the first update:

    loss = - min(r A, clip(r, {1 - arguments.clip_low:.2f}, {1 + arguments.clip_high:.2f}) A)

At the first update r is 1, and the gradient of a token's loss is -A times that of its log-prob: up with every token of
a right reply, down with those of a wrong one. {link("loss.py", "token_weights")} says what the mean is taken over: here
all tokens, so each weighs 1 / {sum(counts)} = {1 / sum(counts):.5f}, whatever the number of GPUs. The sum,
{float(total.detach()):+.4f}, means little: it is minus the mean advantage, and would be 0 were all replies equally
long. What counts is its gradient.

## 8. One update

The gradient's norm is {norm:.4f} (clipped where above {arguments.max_grad_norm:.0f});
{link("training.py", "Policy.step")} takes one step of AdamW at learning rate {arguments.learning_rate:g}. The log-probs
of the replies, summed over their tokens, before and after:

{table(["episode", "verdict", "advantage", "tokens", "before", "after", "change"], moved)}

The ratios of episode {shown.id}'s tokens are now between {float(ratios.min()):.3f} and {float(ratios.max()):.3f};
outside the bounds: {outside} of {len(ratios)}. In a second update on the same rollout, those that have left them in the
direction of their advantage carry no gradient. After the last update {link("training.py", "Policy.sync")} hands the
weights to the model that generates, and the next step begins. {link("grpo.py", "train")} is that loop; what it logs is
in [metrics.md](metrics.md), what else its losses can be in {link("loss.py", "PRESETS")}, and how it is told which
problems to draw in {link("curriculum.py", "Curriculum")}.
""")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="out/sft/checkpoint", help="the embedded default's warm start")
    parser.add_argument("--links", action="store_true", help="only bring the links up to date")
    arguments = parser.parse_args()
    page = linked(PAGE.read_text(encoding="utf-8")) if arguments.links else written(arguments.model)
    PAGE.write_text(page, encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)}: {len(LINK.findall(page))} links, {len(page.splitlines())} lines")


if __name__ == "__main__":
    run_main(main)
