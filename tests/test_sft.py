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
from rollout import CUT_NOTE, Rollout, encode_trajectory, prompt_tokens
from sft import SFTArguments, encoded
from tasks import draw_problems
from training import held_out_accuracy
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
        model=TINY, out=str(folder), tasks="gcd,products", trajectories=64, epochs=2, batch_size=16, warmup=2, seed=3
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
    assert len(load_trajectories(str(trained / "trajectories.jsonl"))[0]) == 64
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
    stored = load_trajectories(str(trained / "trajectories.jsonl"))[0]
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
            model=str(tmp_path / "model"), out=str(tmp_path / "run"), data=str(tmp_path / "t.jsonl"),
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
    stored = load_trajectories(str(trained / "trajectories.jsonl"))[0][:32]
    documents = [encode_trajectory(bundle.tokenizer, t, "bare", bundle.end_id, 96) for t in stored]
    limit = sorted(len(tokens) for tokens, _ in documents)[20]
    kept = sum(len(tokens) <= limit for tokens, _ in documents)
    folder = again(trained, tmp_path / "run", max_length=limit, prompt_style="bare")
    assert f"{32 - kept} trajectories are left out or cut: " in capsys.readouterr().out
    lines = (folder / "left_out.txt").read_text().splitlines()
    sizes = [(t[0]["text"][:60], len(tokens)) for t, (tokens, _) in zip(stored, documents, strict=True)]
    assert lines == [f"{q!r}: {n} tokens are more than {limit}: dropped" for q, n in sizes if n > limit]
    assert len(metrics(folder)) == kept // 16


def test_long_trajectories_are_cut_behind_a_program(trained, tmp_path):
    """Cut in the middle of a program or an observation, a trajectory teaches broken code, or to end a reply there."""
    bundle, limit = load_bundle(TINY), 40
    words = segments(("prompt", "q"), ("model", "7 " * 60), ("observation", "o"), ("model", "a"))
    arguments = SFTArguments(overlong="cut", batch_size=1, max_length=limit, prompt_style="bare")
    data = encoded([LONG, SHORT, words], [], bundle, arguments)
    whole, mask = encode_trajectory(bundle.tokenizer, LONG, "bare", bundle.end_id, 96)
    long = len(encode_trajectory(bundle.tokenizer, words, "bare", bundle.end_id, 96)[0])
    assert len(whole) > limit
    (tokens, sampled), (short, _) = data.train
    assert tokens.tolist() == whole.tolist()[: len(tokens)] and sampled.tolist() == mask.tolist()[: len(tokens)]
    assert bundle.tokenizer.decode(tokens).endswith(LONG[1]["text"]) and short[-1] == bundle.end_id
    assert data.left_out == [
        f"'What is 3 × 5?': {len(whole)} tokens are more than 40: cut to {len(tokens)}",
        f"'q': {long} tokens are more than 40: dropped",
    ]


def test_whole_questions_are_held_out(trained):
    """A question that is both trained on and held out makes every measurement too good."""
    stored, _ = load_trajectories(str(trained / "trajectories.jsonl"))
    twice = [[head, {"text": f"{answer['text']}{i}", "source": "model"}] for i in (0, 1) for head, *_, answer in stored]
    bundle, arguments = load_bundle(TINY), SFTArguments(validation=9, batch_size=1, seed=3)
    data = encoded(twice, [], bundle, arguments)
    assert 9 <= len(data.validation) <= 12 and len(data.train) + len(data.validation) == len(twice)

    def questions(documents) -> set[str]:
        return {bundle.tokenizer.decode(tokens[~sampled]) for tokens, sampled in documents}

    assert not questions(data.train) & questions(data.validation)
    again = encoded(twice, [], bundle, arguments)
    assert [t.tolist() for t, _ in again.validation] == [t.tolist() for t, _ in data.validation]


def test_what_is_measured_while_training(trained, tmp_path, monkeypatch):
    """A validation loss on the weights of another update, a best checkpoint that is merely the last, or a training
    that goes on although nothing gets better."""
    monkeypatch.setattr(sft, "held_out_accuracy", lambda *_: accuracies.pop(0))
    accuracies = [0.25, 0.5, 0.5, 0.25, 0.75]
    more = {"validation": 4, "batch_size": 8, "epochs": 2, "save_every": 1, "patience": 2, "held_out_problems": 1}
    run = again(trained, tmp_path / "run", tasks="gcd", keep_checkpoints=9, **more)
    lines = metrics(run)
    assert [line["held_out"] for line in lines] == [0.25, 0.5, 0.5, 0.25] and accuracies == [0.75]
    assert (run / "best").resolve().name == "step-000002"
    stored, _ = load_trajectories(str(trained.parent / "half.jsonl"))
    for line in lines:
        bundle = load_bundle(str(run / f"checkpoints/step-{line['step'] + 1:06d}"))
        held_out = encoded(stored, [], bundle, SFTArguments(validation=4, batch_size=8)).validation
        scores = [naive_score(bundle.model, *document)[0] for document in held_out]
        expected = -sum(float(score.sum()) for score in scores) / sum(map(len, scores))
        assert line["validation_loss"] == pytest.approx(expected, rel=1e-3)


def test_sampled_accuracy_is_that_of_the_checkpoint(trained, tmp_path, monkeypatch):
    """Accuracy of a copy that has not been brought up to date, or on problems that were trained on. A model of two
    updates is never right, so it is the replies that are compared."""
    seen, real = [], Rollout.__call__

    def recorded(self, problems, *more):
        episodes, stats = real(self, problems, *more)
        seen.append((problems, [episode.tokens for episode in episodes]))
        return episodes, stats

    monkeypatch.setattr(Rollout, "__call__", recorded)
    run = again(trained, tmp_path / "run", tasks="gcd", held_out_problems=3, max_reply_tokens=40)
    arguments = SFTArguments(max_reply_tokens=40)
    with arguments.executor() as executor:
        for model in (str(run / "checkpoint"), TINY):
            rollout = Rollout(load_bundle(model), executor, arguments, 0)
            held_out_accuracy(rollout, draw_problems("gcd", "dev", 3), 1.0, 2, "")
    (asked, replies), (wanted, expected), (_, untrained) = seen
    assert asked == wanted
    assert all(map(torch.equal, replies, expected)) and not all(map(torch.equal, replies, untrained))


def test_patience_needs_something_to_measure():
    """A training that is to stop by itself, and never does, since nothing is held out."""
    with pytest.raises(UserError, match="--patience needs something to measure"):
        SFTArguments(patience=3)


def test_the_scripted_teacher_is_asked_for_enough_and_only_once(tmp_path, capsys):
    """A good run moved aside before it was said that the new one cannot be; a resumed run that says that it has more
    trajectories than before, and has not."""
    with pytest.raises(UserError, match="8 trajectories are fewer than one batch of 16 and 4 for validation"):
        SFTArguments(trajectories=8, batch_size=16, validation=4)
    settings = {"tasks": "gcd", "batch_size": 8, "epochs": 1, "out": str(tmp_path / "run")}
    sft.train(SFTArguments(trajectories=8, **settings))
    with pytest.raises(UserError, match=r"run was begun with --trajectories 8: take that, or another --out"):
        sft.train(SFTArguments(trajectories=16, resume=True, **settings))
    assert len(load_trajectories(str(tmp_path / "run/trajectories.jsonl"))[0]) == 8


def test_a_mask_can_be_seen_of_less_than_a_batch(tmp_path, monkeypatch, capsys):
    """To look at one's own first trajectories, one had to write thirty-two."""
    monkeypatch.setenv("NO_COLOR", "1")
    write_trajectories([{"segments": SHORT}], tmp_path / "t.jsonl")
    sft.main(["--data", str(tmp_path / "t.jsonl"), "--show_mask"])
    assert f"«{SHORT[1]['text']}<|im_end|>»" in capsys.readouterr().out


def test_the_mask_can_be_seen(trained, tmp_path, monkeypatch, capsys):
    """A picture that shows something else than what is trained on is worse than none."""
    monkeypatch.setenv("NO_COLOR", "1")
    write_trajectories([{"segments": LONG}, {"segments": SHORT}], tmp_path / "t.jsonl")
    sft.main(["--data", str(tmp_path / "t.jsonl"), "--batch_size", "2", "--show_mask", "--out", str(tmp_path / "run")])
    said = capsys.readouterr().out
    for segment in (LONG[1], SHORT[1]):
        end = "" if segment is LONG[1] else "<|im_end|>"
        assert f"«{segment['text']}{end}»" in said
    assert f"»{LONG[2]['text']}«" in said and "2 documents in one micro-batch" in said
    assert not (tmp_path / "run").exists()


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
