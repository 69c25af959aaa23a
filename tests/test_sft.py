"""The warm start: reading trajectories, their masks, and a whole run on scripted trajectories."""

import json
import math
import random
import shutil
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from safetensors.torch import load_file
from test_training import naive_score, random_bundle
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

import sft
from checkpoint import load_bundle, save_bundle
from cli import ROOT, UserError
from rollout import CUT_NOTE, encode_trajectory, prompt_tokens
from sft import SFTArguments
from trajectories import load_trajectories, write_trajectories

TINY = str(ROOT / "assets/tiny")


@pytest.fixture(scope="module", autouse=True)
def on_cpu():
    PartialState(cpu=True)  # the first call decides, also where there is a GPU


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(TINY)


def segments(*pieces: tuple[str, str]) -> list[dict[str, str]]:
    return [{"text": text, "source": source} for source, text in pieces]


SHORT = segments(("prompt", "What is 3 × 5?"), ("model", "So <<<15>>>"))
LONG = segments(
    ("prompt", "What is 3 × 5?"),
    ("model", "I will compute it.\n```python\nprint(3 * 5)\n```"),
    ("observation", "\nCode Execution Results:\n15\n"),
    ("model", "So <<<15>>>"),
)


def metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "checkpoint/model.safetensors")


# --------------------------------------------------------------------------------------------------------------------
# reading


def test_stored_trajectories_come_back_as_they_were(tmp_path):
    """U+2028 and its like are ends of lines to str.splitlines, but stand in JSON as they are: a text that holds one
    would be torn in two."""
    strange = segments(("prompt", "a\u2028b\x85c\nd"), ("model", "e\r\n\x0cf"))
    path = tmp_path / "t.jsonl"
    write_trajectories([{"segments": s, "task": "x"} for s in (SHORT, strange, LONG)], path)
    assert load_trajectories(str(path)) == [SHORT, strange, LONG]


@pytest.mark.parametrize(
    "line",
    [
        '{"segments": [',
        "",
        "[]",
        '"text"',
        "3",
        '{"text": "no segments"}',
        '{"segments": []}',
        '{"segments": [1, 2]}',
        '{"segments": [{"text": "no source"}]}',
        '{"segments": [{"source": "prompt", "text": "q"}, {"source": "model"}]}',
        json.dumps({"segments": segments(("prompt", "q"))}),
        json.dumps({"segments": segments(("model", "a"), ("prompt", "q"))}),
        json.dumps({"segments": segments(("model", "a"), ("model", "a"))}),
        json.dumps({"segments": segments(("prompt", "q"), ("model", "a"), ("observation", "o"))}),
        json.dumps({"segments": segments(("prompt", "q"), ("prompt", "q"), ("model", "a"))}),
        json.dumps({"segments": segments(("prompt", "q"), ("user", "q"), ("model", "a"))}),
        json.dumps({"segments": [{"source": "prompt", "text": 5}, {"source": "model", "text": "a"}]}),
    ],
)
def test_a_bad_line_is_named(line, tmp_path):
    """One bad line among thousands, and a traceback from the middle of the tokenizer that names none."""
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"segments": SHORT}) + "\n" + line + "\n")
    with pytest.raises(UserError, match=r"mine\.jsonl, line 2\b") as error:
        load_trajectories(str(path))
    assert "\n" not in str(error.value)


def test_missing_and_empty_files_are_named(tmp_path):
    """Training on nothing must not begin."""
    with pytest.raises(UserError, match=r"there is no trajectory file .*none\.jsonl"):
        load_trajectories(str(tmp_path / "none.jsonl"))
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(UserError, match=r"empty\.jsonl holds no trajectories"):
        load_trajectories(str(tmp_path / "empty.jsonl"))


# --------------------------------------------------------------------------------------------------------------------
# masks


def test_the_mask_follows_the_segments(tokenizer):
    """A mask guessed from token values, or a loss on prompt or observation; and an end token without loss."""
    tokens, sampled = encode_trajectory(tokenizer, LONG, "bare", 2, 96)
    expected_tokens, expected_mask = prompt_tokens(tokenizer, LONG[0]["text"], "bare"), []
    expected_mask += [False] * len(expected_tokens)
    for segment in LONG[1:]:
        piece = tokenizer.encode(segment["text"], add_special_tokens=False)
        expected_tokens += piece
        expected_mask += [segment["source"] == "model"] * len(piece)
    assert tokens.tolist() == [*expected_tokens, 2]
    assert sampled.tolist() == [*expected_mask, True]
    assert tokenizer.decode(tokens[sampled][:-1]) == LONG[1]["text"] + LONG[3]["text"]


def test_segments_are_tokenized_each_by_itself(tokenizer):
    """Tokenized as one text, a token can span the border of an observation, which no rollout ever produces."""
    word = max((t for t in tokenizer.get_vocab() if t.isascii() and t.isalpha()), key=len)
    assert len(tokenizer.encode(word, add_special_tokens=False)) == 1
    cut = segments(("prompt", "q"), ("observation", word[:2]), ("model", word[2:]))
    tokens, sampled = encode_trajectory(tokenizer, cut, "bare", 2, 96)
    first, second = (tokenizer.encode(text, add_special_tokens=False) for text in (word[:2], word[2:]))
    assert tokens.tolist()[-len(first) - len(second) - 1 :] == [*first, *second, 2]
    assert sampled.tolist()[-len(first) - len(second) - 1 :] == [*[False] * len(first), *[True] * len(second), True]


def test_styles_and_long_output_are_those_of_rollouts(tokenizer):
    """Another head prompt, or longer observations, than the model will meet when it samples."""
    long = segments(("prompt", "q"), ("model", "m"), ("observation", "7 " * 300), ("model", "a"))
    tokens, sampled = encode_trajectory(tokenizer, long, "code", 2, 40)
    prompt = prompt_tokens(tokenizer, "q", "code")
    assert tokens.tolist()[: len(prompt)] == prompt != prompt_tokens(tokenizer, "q", "bare")
    assert int((~sampled).sum()) - len(prompt) <= 40
    assert CUT_NOTE in tokenizer.decode(tokens)


# --------------------------------------------------------------------------------------------------------------------
# whole runs


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The run folder of two epochs over 64 scripted trajectories."""
    folder = tmp_path_factory.mktemp("sft") / "run"
    arguments = SFTArguments(
        TINY, str(folder), tasks="gcd,products", trajectories=64, epochs=2, batch_size=16, warmup=2, seed=3
    )
    assert sft.train(arguments) == folder / "checkpoint"
    lines = (folder / "trajectories.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder.parent / "half.jsonl").write_text("".join(lines[:32]), encoding="utf-8")
    return folder


def again(trained: Path, out: Path, **more) -> Path:
    """A run of one epoch on half of the trajectories of `trained`."""
    settings = {"model": TINY, "data": str(trained.parent / "half.jsonl"), "epochs": 1, "batch_size": 16, "warmup": 1}
    sft.train(SFTArguments(out=str(out), **(settings | more)))
    return out


def test_a_run_leaves_everything_behind(trained):
    """A run whose data, settings or figures are missing cannot be looked into, nor repeated."""
    names = {path.name for path in trained.iterdir()}
    assert names == {
        *("config.yaml", "revision.txt", "metrics.jsonl", "trajectories.jsonl", "checkpoint", "checkpoints")
    }
    assert len(load_trajectories(str(trained / "trajectories.jsonl"))) == 64
    lines = metrics(trained)
    assert [line["step"] for line in lines] == list(range(8))
    assert all(math.isfinite(value) for line in lines for value in line.values())
    assert [line["learning_rate"] for line in lines][:2] == [1e-3, 2e-3]
    for epoch in (lines[:4], lines[4:]):  # every trajectory once per epoch
        assert sum(line["tokens"] for line in epoch) == sum(line["tokens"] for line in lines[:4])
    assert lines[0]["tokens"] != lines[4]["tokens"] or lines[1]["tokens"] != lines[5]["tokens"]  # in another order
    assert 0 < lines[0]["sampled_tokens"] < lines[0]["tokens"]


def test_the_loss_falls_and_the_checkpoint_is_the_trained_model(trained):
    """A checkpoint of the weights from before training looks like any other folder."""
    lines = metrics(trained)
    assert lines[-1]["loss"] < lines[0]["loss"]
    bundle, base = load_bundle(str(trained / "checkpoint")), load_bundle(TINY)
    theirs = AutoModelForCausalLM.from_pretrained(trained / "checkpoint", dtype=torch.float32)
    stored = load_trajectories(str(trained / "trajectories.jsonl"))
    losses = {"ours": 0.0, "theirs": 0.0, "base": 0.0}
    for trajectory in stored[:12]:
        tokens, sampled = encode_trajectory(bundle.tokenizer, trajectory, bundle.prompt_style, bundle.end_id, 96)
        losses["ours"] -= float(naive_score(bundle.model, tokens, sampled)[0].sum())
        losses["base"] -= float(naive_score(base.model, tokens, sampled)[0].sum())
        with torch.no_grad():
            log_probs = theirs(tokens[None]).logits[0].log_softmax(-1)[:-1].gather(1, tokens[1:, None])[:, 0]
        losses["theirs"] -= float(log_probs[sampled[1:]].sum())
    assert losses["ours"] == pytest.approx(losses["theirs"], rel=1e-4)
    assert losses["ours"] < losses["base"]
    assert (bundle.end_ids, bundle.prompt_style) == (base.end_ids, base.prompt_style)


def test_the_seed_decides_the_weights_bit_for_bit(trained, tmp_path):
    """A seed that does not reach the order of the data, or an order from a set, and no run can be repeated."""
    first, second = weights(again(trained, tmp_path / "a", seed=5)), weights(again(trained, tmp_path / "b", seed=5))
    other = weights(again(trained, tmp_path / "c", seed=6))
    assert first.keys() == second.keys() == other.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_micro_batches_do_not_change_the_run(trained, tmp_path):
    """The same run on a machine with less memory must be the same run."""
    whole = metrics(again(trained, tmp_path / "a"))
    small = metrics(again(trained, tmp_path / "b", micro_batch_tokens=300))
    for a, b in zip(whole, small, strict=True):
        assert (a["tokens"], a["sampled_tokens"]) == (b["tokens"], b["sampled_tokens"])
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-2)


def test_the_denominator_is_the_same_for_every_batch(tmp_path):
    """A mean per batch gives a token of a short batch more weight than one of a long batch. At a learning rate of 0
    the weights stay, so each gradient norm must be that of a trajectory's summed loss over one constant."""
    bundle = random_bundle()
    save_bundle(bundle, tmp_path / "model")
    write_trajectories([{"segments": SHORT}, {"segments": LONG}], tmp_path / "t.jsonl")
    sft.train(
        SFTArguments(
            str(tmp_path / "model"), str(tmp_path / "run"), str(tmp_path / "t.jsonl"),
            epochs=1, batch_size=1, learning_rate=0.0, schedule="constant", warmup=0, weight_decay=0.0,
        )
    )  # fmt: skip
    model = bundle.model.requires_grad_(True)
    encoded = [encode_trajectory(bundle.tokenizer, t, "bare", bundle.end_id, 96) for t in (SHORT, LONG)]
    denominator = sum(int(sampled.sum()) for _, sampled in encoded) / 2
    expected = {}
    for tokens, sampled in encoded:
        model.zero_grad()
        log_probs = naive_score(model, tokens, sampled)[0]
        (-log_probs.sum() / denominator).backward()
        norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm().item()
        expected[len(tokens)] = pytest.approx(norm, rel=1e-3), pytest.approx(-log_probs.mean().item(), rel=1e-3)
    assert {line["tokens"]: (line["grad_norm"], line["loss"]) for line in metrics(tmp_path / "run")} == expected


def test_long_trajectories_are_dropped_and_counted(trained, tmp_path, capsys):
    """A trajectory cut at the limit teaches a reply without its end; one dropped in silence, a smaller data set."""
    bundle = load_bundle(TINY)
    stored = load_trajectories(str(trained / "trajectories.jsonl"))[:32]
    encoded = [encode_trajectory(bundle.tokenizer, t, "bare", bundle.end_id, 96) for t in stored]
    limit = sorted(len(tokens) for tokens, _ in encoded)[20]
    kept = sum(len(tokens) <= limit for tokens, _ in encoded)
    folder = again(trained, tmp_path / "run", max_length=limit, prompt_style="bare")
    assert f"dropped {32 - kept} of 32 trajectories: longer than {limit} tokens" in capsys.readouterr().out
    assert len(metrics(folder)) == kept // 16


def test_too_few_trajectories_are_refused(trained, tmp_path):
    """No batch, no update: such a run would end at once and save the model it was given."""
    with pytest.raises(UserError, match="32 trajectories are fewer than one batch of 33"):
        again(trained, tmp_path / "run", batch_size=33)
    with pytest.raises(UserError, match="unknown schedule 'steps': one of constant, cosine, wsd"):
        again(trained, tmp_path / "unknown", schedule="steps")  # used to show only after the warm-up
    assert not (tmp_path / "run/checkpoint").exists() and not (tmp_path / "unknown").exists()


def test_the_command_line(trained, tmp_path, monkeypatch):
    """The entry point as a user calls it: a file, flags, relative paths."""
    monkeypatch.chdir(tmp_path)
    lines = (trained / "trajectories.jsonl").read_text().splitlines(keepends=True)
    Path("few.jsonl").write_text("".join(random.Random(0).sample(lines, 4)))
    shutil.copytree(TINY, "models/start")
    Path("mine.yaml").write_text("model: models/start\ndata: few.jsonl\nepochs: 1\nbatch_size: 4\nout: out/a\n")
    sft.main(["mine.yaml", "--out", "out/b", "--batch_size", "2"])
    assert [path.name for path in Path("out").iterdir()] == ["b"] and len(metrics(Path("out/b"))) == 2


def test_data_may_lie_in_the_run_folder_that_is_moved_aside(trained, tmp_path):
    """Moving the older run aside before reading --data took the data away; bad data must not move anything at all."""
    run = again(trained, tmp_path / "run")
    shutil.copy(trained.parent / "half.jsonl", run / "trajectories.jsonl")
    again(trained, run, data=str(run / "trajectories.jsonl"))
    folders = sorted(tmp_path.iterdir())
    assert len(folders) == 2
    with pytest.raises(UserError, match="no trajectory file"):
        again(trained, run, data=str(run / "nothing.jsonl"))
    assert sorted(tmp_path.iterdir()) == folders


def test_the_checkpoint_remembers_its_prompt(trained, tmp_path):
    """Evaluated under another head prompt than it was trained with, a model looks worse than it is."""
    run = again(trained, tmp_path / "run", prompt_style="code")
    assert load_bundle(str(run / "checkpoint")).prompt_style == "code"
    with pytest.raises(UserError, match="unknown prompt style 'cod'"):
        again(trained, tmp_path / "other", prompt_style="cod")
