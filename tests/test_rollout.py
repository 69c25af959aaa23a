"""The protocol as a pure state machine, and the loop around it with scripted and with real models."""

import dataclasses
import os
import random
import threading
from concurrent.futures import Future
from types import SimpleNamespace
from typing import get_args

import pytest
import torch
from conftest import ByteTokenizer, hf_config, random_model
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoint import load_bundle
from executor import Executor, Result
from rollout import (
    CUT_NOTE,
    NO_RUNS_LEFT,
    Action,
    Episode,
    Finish,
    Protocol,
    Rollout,
    RolloutArguments,
    encode_trajectory,
    first_event,
    observation,
    observation_tokens,
    watched_tokens,
)
from scores import readable
from suites.base import Problem
from tasks import problems

CODE = "Let me see.\n```python\nprint(6 * 7)\n```"


def result(status: str = "ok", stdout: str = "42\n", stderr: str = "") -> Result:
    return Result(status, stdout, stderr, 0, None, False, 0.01, 0.01, 10.0, 0.0, ())


# --------------------------------------------------------------------------------------------------------------------
# the state machine, without any model


def test_a_closed_block_is_run_and_its_output_said():
    """The paper's loop: code, output, answer."""
    protocol = Protocol()
    assert protocol.read("Let me see.\n```python\nprint(6 * 7)") == Action("go_on")
    assert protocol.read(CODE) == Action("run", "print(6 * 7)\n")
    assert protocol.observe(result()) == Action("say", "\nCode Execution Results:\n42\n")
    assert protocol.read("So <<<42>>", "") == Action("go_on")
    assert protocol.read("So <<<42>>>") == Action("finish", "answer")
    assert protocol.answer == "42" and protocol.code_runs == 1


@pytest.mark.parametrize(
    "turn, ended, expected",
    [
        ("```python\nprint('<<<1>>>')\n", "", Action("go_on")),  # marks inside code are no answer
        ("```python\nprint('<<<1>>>')\n```", "", Action("run", "print('<<<1>>>')\n")),
        ("```text\nprint(1)\n```", "", Action("go_on")),  # another language is not run
        ("```\nprint(1)\n```", "", Action("go_on")),
        ("Inline ```python x``` here", "", Action("go_on")),
        ("<<<7>>> and then\n```python\nprint(1)\n```", "", Action("finish", "answer")),  # what closes first counts
        ("no idea", "end", Action("finish", "no_answer")),
        ("```python\nprint(1)\n", "end", Action("finish", "no_answer")),
        ("on and on", "length", Action("finish", "length")),
        (CODE, "length", Action("finish", "length")),  # no room for its output
        ("So <<<7>>>", "length", Action("finish", "answer")),  # the last token that fitted closed the answer
    ],
)
def test_what_a_turn_leads_to(turn, ended, expected):
    """Answers read from code reward printing guesses; blocks of other languages run as Python are noise."""
    assert Protocol().read(turn, ended) == expected


def test_code_runs_are_capped_with_one_note():
    """Without a cap an episode loops until its tokens are spent; without a note the model never learns why."""
    protocol = Protocol(max_code_runs=2)
    for _ in range(2):
        assert protocol.read(CODE).kind == "run"
        protocol.observe(result())
    assert protocol.read(CODE) == Action("say", NO_RUNS_LEFT)
    assert protocol.read(CODE) == Action("finish", "turns")
    assert protocol.code_runs == 2


def test_time_outs_in_a_row_end_the_episode():
    """A policy stuck in endless loops would make each step last code runs x time limit."""
    protocol = Protocol()
    for status, kind in (("timeout", "say"), ("ok", "say"), ("timeout", "say"), ("timeout", "finish")):
        protocol.read(CODE)
        assert protocol.observe(result(status)).kind == kind
    assert protocol.observe(result("sandbox_error")) == Action("finish", "sandbox_error")


def test_observations_say_what_happened():
    """An empty observation leaves the model guessing whether its program ran at all."""
    assert observation(result(stdout="")) == "\nCode Execution Results:\n(no output)\n"
    text = observation(result("timeout", "half\n"))
    assert "half\nThe program was stopped: time limit reached." in text
    assert "1\nTraceback: no" in observation(result("error", "1\n", "Traceback: no\n"))


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=400), st.integers(30, 200))
def test_long_observations_keep_head_and_tail_within_the_budget(text, budget):
    """A cut inside a character shows the model broken text; a cut that leaves no note hides that there was more."""
    tokenizer = ByteTokenizer()
    tokens = observation_tokens(tokenizer, text, budget)
    assert len(tokens) <= budget
    whole = tokenizer.encode(text)
    if len(whole) <= budget:
        assert tokens == whole
    else:
        head, tail = tokenizer.decode(tokens).split(CUT_NOTE)
        unlike = {"\ufffd", "\0"} & set(text)  # what cut characters look like, and the byte that stands for the end
        assert unlike or (text.startswith(head) and text.endswith(tail))


def test_megabytes_of_output_are_cut_before_tokenizing():
    """A flood of output must not cost seconds of tokenizing for a hundred tokens."""

    class Counting(ByteTokenizer):
        seen = 0

        def encode(self, text, add_special_tokens=False, verbose=True):
            self.seen += len(text)
            return super().encode(text)

    tokenizer = Counting()
    tokens = observation_tokens(tokenizer, "a" * 10**6 + "b" * 10**6, 100)
    assert len(tokens) <= 100 and tokenizer.seen < 10_000
    assert tokenizer.decode(tokens).startswith("a") and tokenizer.decode(tokens).endswith("b")


def test_trajectories_are_tokenized_as_rollouts_come_about():
    """Tokenizing the joined text lets tokens straddle the edge between model and observation: a wrong mask."""
    segments = [
        {"text": "Q1", "source": "prompt"},
        {"text": CODE, "source": "model"},
        {"text": "\nCode Execution Results:\n" + "9" * 500 + "\n", "source": "observation"},
        {"text": "So <<<42>>>", "source": "model"},
    ]
    tokenizer = ByteTokenizer()
    tokens, sampled = encode_trajectory(tokenizer, segments, "bare", end_id=0, max_observation_tokens=60)
    prompt, answer = "Q: Q1\nA: ", "So <<<42>>>"
    assert sampled.tolist() == ([False] * len(prompt) + [True] * len(CODE) + [False] * 60 + [True] * (len(answer) + 1))
    assert tokens[-1] == 0 and tokenizer.decode(tokens[sampled]) == CODE + answer


# --------------------------------------------------------------------------------------------------------------------
# the loop, with models that follow a script


class ScriptedModel:
    """Stands in for a decoder: each sequence samples the tokens of the script that its prompt names."""

    def __init__(self, generator, scripts: dict[tuple[int, ...], list[int]]):
        self.generator, self.scripts = generator, scripts
        self.config, self.parameters = generator.model.config, generator.model.parameters

    def __call__(self, tokens, positions, attend):
        return attend.slots[:, None].float()

    def logits(self, hidden):
        logits = torch.full((len(hidden), self.config.vocab_size), -1e4)
        for row, slot in enumerate(hidden[:, 0].long().tolist()):
            script = self.scripts[tuple(self.generator.owner[slot].prompt)]
            written = int(self.generator.sampled[slot, : self.generator.length[slot]].sum())
            logits[row, script[written] if written < len(script) else 0] = 0.0
        return logits


class ScriptedRollout(Rollout):
    scripts: dict[str, list[int]]

    def _generator(self, max_length, temperature):
        generator = super()._generator(max_length, temperature)
        tokenizer = self.bundle.tokenizer
        scripts = {tuple(tokenizer.encode(f"Q: {q}\nA: ")): script for q, script in self.scripts.items()}
        generator.model = ScriptedModel(generator, scripts)
        return generator


def scripted_bundle(pieces: tuple[str, ...] = ()) -> SimpleNamespace:
    tokenizer = ByteTokenizer(pieces)
    config = hf_config("qwen2")
    config.vocab_size, config.num_hidden_layers = len(tokenizer), 1
    return SimpleNamespace(model=random_model(config), tokenizer=tokenizer, end_ids=[0], prompt_style="bare")


def scripted(scripts: dict[str, list[int]], executor, pieces: tuple[str, ...] = (), **arguments) -> list[Episode]:
    """Runs one problem per script: the question is its key, the right answer of each is 42."""
    rollout = ScriptedRollout(scripted_bundle(pieces), executor, RolloutArguments(**{"slots": 4, **arguments}))
    rollout.scripts = scripts
    return rollout([Problem("gcd", i, question, "42") for i, question in enumerate(scripts)])[0]


@pytest.fixture(scope="module")
def executor():
    with Executor() as executor:
        yield executor


PIECES = ("```", "`\n", ")\n```\nSo", "```\n\n", ">>>", ">>>.", ">>", "<<<4", "``", "\n```py", "thon\n")


def split(text: str, rng: random.Random) -> list[int]:
    """A random way to write `text` with bytes and PIECES."""
    tokens, i = [], 0
    while i < len(text):
        fits = [n for n, piece in enumerate(PIECES) if text.startswith(piece, i)]
        n = rng.choice([*fits, -1])
        tokens.append(256 + n if n >= 0 else ord(text[i]))
        i += len(PIECES[n]) if n >= 0 else 1
    return tokens


def test_markers_are_found_however_they_are_tokenized(executor):
    """A closing fence that shares its token with what follows ("```\\n\\n", ")\\n```\\nSo") is missed by a search for
    tokens, and cutting or re-encoding it would put tokens into the episode that nobody sampled."""
    r = random.Random(0)
    first, second = "Hm.\n```python\nprint(6 * 7)\n```", "So <<<42>>>"
    scripts = {}
    for i in range(40):
        scripts[f"q{i}"] = split(first + r.choice(["", "\n", "\nSo", "\n\n"]), r) + split(second + ".", r)
    for (question, script), episode in zip(scripts.items(), scripted(scripts, executor, PIECES), strict=True):
        written = episode.tokens[episode.sampled].tolist()
        assert written == script[: len(written)], question  # token in, token out, nothing invented
        assert (episode.finish, episode.answer, episode.correct, episode.reward) == ("answer", "42", True, 1.0)
        assert episode.code_runs == 1 and episode.turns[0].code == "print(6 * 7)\n"
        assert [s["source"] for s in episode.segments(ByteTokenizer(PIECES))] == [
            "prompt", "model", "observation", "model",
        ]  # fmt: skip
        observed = ByteTokenizer(PIECES).decode(episode.tokens[episode.turns[0].end : episode.turns[1].start])
        assert observed == "\nCode Execution Results:\n42\n"


FRAGMENTS = (
    "```", "``", "`", "python", "py", "\n", " ", "\t", "<<<", "<", ">>>", ">>", ">", "42", "print(1)\n", "word", "é",
    "```python\n", "\n```\n",
)  # fmt: skip


@settings(max_examples=1000, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=20), st.randoms(use_true_random=False))
def test_the_first_event_is_the_same_however_a_text_is_tokenized(fragments, rng):
    """Asked only where a token holds a back-tick or `>`, and with whatever that token brings besides, the protocol must
    see what it would see character by character: an event passed over, another payload, or one that was never there."""
    text = "".join(fragments)
    expected = next(filter(None, (first_event(text[:n]) for n in range(len(text) + 1))), None)
    seen, position = None, 0
    while position < len(text) and not seen:
        token = text[position : position + rng.randint(1, 6)]
        position += len(token)
        if set(token) & set("`>"):
            seen = first_event(text[:position])
    assert seen == expected


def test_courses_of_episodes(executor):
    """Each way to end, side by side in four slots; an episode must not inherit anything from its slot's last owner."""
    scripts = {
        "answer": "<<<42>>>",
        "wrong": "<<<41>>>",
        "no answer": "I do not know.\0",
        "length": "on " * 200,
        "cap": CODE * 3 + "\n```python\n```" + "<<<42>>>",
        "repair": "```python\nprint(x)\n```" + "\n```python\nprint(42)\n```" + "It is <<<42>>>",
        "exit": "```python\nimport os\nos._exit(3)\n```<<<42>>>",
        "too long": "<<<42>>>",
    }
    scripts = {k if k != "too long" else "?" * 600: list(v.encode()) for k, v in scripts.items()}
    episodes = scripted(scripts, executor, max_code_runs=2, max_reply_tokens=400)
    assert [e.finish for e in episodes] == [
        "answer", "answer", "no_answer", "length", "turns", "answer", "answer", "prompt_too_long",
    ]  # fmt: skip
    assert [e.correct for e in episodes] == [True, False, False, False, False, True, True, False]
    assert [e.code_runs for e in episodes] == [0, 0, 0, 0, 2, 2, 1, 0]
    assert episodes[2].tokens[-1] == 0 and episodes[2].sampled[-1]  # the end token is the model's own
    assert int(episodes[3].sampled.sum()) == 400
    assert all(e.turns[-1].end == len(e.tokens) for e in episodes)
    assert "NameError" in episodes[5].turns[0].result.stderr and episodes[5].turns[1].result.stdout == "42\n"
    assert all((e.logprobs[~e.sampled] == 0).all() and (e.logprobs[e.sampled] > -1e-3).all() for e in episodes)
    assert "right" in readable(episodes[0].record(ByteTokenizer()))


def test_watched_tokens_hold_every_marker():
    """A marker character that no watched token holds would let a block pass unseen."""
    tokenizer = load_bundle("assets/tiny").tokenizer
    watch = watched_tokens(tokenizer)
    for text in ("```", "x = 3\n```\n", "<<<5>>>", " `", "->", ">"):
        tokens = tokenizer.encode(text, add_special_tokens=False)
        for token in tokens:
            assert watch[token] == bool(set("`>") & set(tokenizer.decode([token])))


# --------------------------------------------------------------------------------------------------------------------
# replay


# Of the test in which everything goes wrong; 10,000 take minutes.
EPISODES = int(os.environ.get("EPISODES", "400"))


class SlowExecutor:
    """Answers every program alike, after a random delay."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)

    def submit(self, code: str) -> Future:
        future: Future = Future()
        answer = dataclasses.replace(result(), stdout=f"{len(code)}\n")
        delay = self.random.choice([0.0, 0.002, 0.03])
        if delay:
            threading.Timer(delay, future.set_result, [answer]).start()
        else:
            future.set_result(answer)
        return future


def test_deterministic_episodes_do_not_depend_on_how_long_tools_take():
    """An observation that joins one step later changes the shapes of all batches behind it, and with them the last bits
    of everybody's log-probs."""
    bundle = load_bundle("assets/tiny")
    drawn = [p for task in ("gcd", "chain_sum") for p in problems(task, "dev", 4)]
    runs = []
    for seed in (1, 2):
        arguments = RolloutArguments(slots=5, max_reply_tokens=120, deterministic=True)
        rollout = Rollout(bundle, SlowExecutor(seed), arguments, seed=7)
        runs.append(rollout(drawn, samples=3)[0])
    assert sum(e.code_runs for e in runs[0]) >= 5
    for a, b in zip(*runs, strict=True):
        assert torch.equal(a.tokens, b.tokens) and torch.equal(a.logprobs, b.logprobs)
        assert (a.finish, a.answer, a.code_runs) == (b.finish, b.answer, b.code_runs)


class FailingExecutor(SlowExecutor):
    """Programs end in every way there is, now or later."""

    def submit(self, code: str) -> Future:
        future: Future = Future()
        status = self.random.choice(["ok", "ok", "error", "timeout", "memory", "output", "signal", "sandbox_error"])
        answer = dataclasses.replace(result(), status=status, stdout="7\n" * self.random.choice([0, 1, 40]))
        threading.Timer(self.random.choice([0.0, 0.001, 0.01]), future.set_result, [answer]).start()
        return future


@pytest.mark.parametrize("deterministic", [True, False])
def test_every_episode_comes_back_however_its_programs_end(deterministic):
    """An episode that is forgotten, told twice, or whose slot is not given back makes a rollout wait for ever or a
    group too small. The model writes whole blocks and answers as single tokens, at random."""
    pieces = ("\n```python\n7\n```", "<<<42>>>", "```py\n", "\n```\nSo", ">>>")
    bundle = scripted_bundle(pieces)
    bundle.end_ids = [0, 1, 2, 3]
    logits, favoured = bundle.model.logits, torch.zeros(len(bundle.tokenizer))
    favoured[256:] = torch.tensor([14.0, 12.0, 9.0, 9.0, 9.0])
    favoured[bundle.end_ids] = 9.0
    bundle.model.logits = lambda hidden: logits(hidden) + favoured
    arguments = RolloutArguments(slots=12, max_reply_tokens=200, max_code_runs=2, deterministic=deterministic)

    class Watched(Rollout):
        def on_step(self, generator, live):
            self.generator = generator
            assert sum(owner is not None for owner in generator.owner) + len(generator.queue) == len(live)

    rollout = Watched(bundle, FailingExecutor(0), arguments)
    questions = ["?" * 600 if i % 50 == 0 else f"{i}" * (1 + i % 40) for i in range(EPISODES // 4)]
    episodes, stats = rollout([Problem("gcd", i, question, "42") for i, question in enumerate(questions)], samples=4)
    assert [episode.id for episode in episodes] == list(range(EPISODES))
    assert not rollout.generator.queue and rollout.generator.owner == [None] * 12
    assert {episode.finish for episode in episodes} == set(get_args(Finish))
    assert stats.programs == sum(e.code_runs for e in episodes) > EPISODES // 2
    # The pass that ends an episode samples nothing for it that is thrown away: what is counted is what is kept.
    assert stats.sampled_tokens == sum(int(e.sampled.sum()) for e in episodes)
    rates = stats.rates(useful_tokens=stats.sampled_tokens)
    assert rates["tokens_per_second"] == rates["useful_tokens_per_second"] == stats.sampled_tokens / stats.seconds
    assert all(0 < rates[name] <= 1 for name in ("slots_busy", "tool_wait_share", "prefill_share"))


def test_a_rank_samples_what_one_process_would(executor):
    """Episodes are numbered over all ranks: a rank that counted from zero would repeat its neighbour's randomness."""
    bundle = load_bundle("assets/tiny")
    drawn = problems("gcd", "dev", 4)
    rollout = Rollout(bundle, executor, RolloutArguments(max_reply_tokens=24), seed=3)
    everything, _ = rollout(drawn, samples=2, step=5)
    share, _ = rollout(drawn, samples=2, step=5, groups=range(2, 4))
    for a, b in zip(everything[4:], share, strict=True):
        assert (a.id, a.group) == (b.id, b.group)
        assert torch.equal(a.tokens, b.tokens)


def test_log_probs_are_stored_with_the_text_of_their_tokens(executor):
    """Colours under the wrong words; or a record that outgrows the text tenfold for every episode of a long run."""
    bundle = load_bundle("assets/tiny")
    rollout = Rollout(bundle, executor, RolloutArguments(max_reply_tokens=40), seed=3)
    episodes, _ = rollout(problems("gcd", "dev", 17), samples=1)
    assert "token_logprobs" not in episodes[16].record(bundle.tokenizer)
    whole = 0
    for episode in episodes[:16]:
        record = episode.record(bundle.tokenizer)
        texts = [segment["text"] for segment in record["segments"] if segment["source"] == "model"]
        logprobs = iter(episode.logprobs[episode.sampled].tolist())
        for text, flat in zip(texts, record["token_logprobs"], strict=True):
            if flat:
                assert sum(flat[::2]) == len(text.encode())
                assert flat[1::2] == pytest.approx([next(logprobs) for _ in flat[1::2]], abs=1e-3)
                whole += 1
            else:
                logprobs = iter([])  # a character in several tokens: nothing to compare with from here on
                break
    assert whole > 8


def test_unknown_prompt_style_is_refused(executor):
    """A misspelt style must not fall back to another prompt than the checkpoint was trained with."""
    with pytest.raises(ValueError, match="unknown prompt style 'fre': one of free, text, code, bare"):
        Rollout(load_bundle("assets/tiny"), executor, RolloutArguments(prompt_style="fre"))
