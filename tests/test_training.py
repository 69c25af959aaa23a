"""Packed log-probs and gradients against naive loops; arguments, run folders, checkpoints."""

import dataclasses
import itertools
import json
import math
import re

import pytest
import torch
import yaml
from accelerate import PartialState
from conftest import hf_config, random_model
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

import training
from checkpoint import Bundle, atomic_folder, load_bundle, save_bundle
from cli import ROOT, Run, UserError, parse_arguments, run_main, user_input
from evaluate import EvaluateArguments
from executor import SandboxError
from grpo import GRPOArguments
from model import Decoder, ModelConfig, PackedAttention, packed_positions
from sft import SFTArguments
from training import (
    Packed,
    Policy,
    backward,
    document_cost,
    even_shares,
    learning_rate_at,
    log_probs_of,
    micro_batches,
    score,
    score_packed,
)

VOCAB, END = 101, 3


@pytest.fixture(scope="module", autouse=True)
def on_cpu():
    PartialState(cpu=True)  # the first call decides, also where there is a GPU


def random_documents(lengths=(23, 2, 40, 7, 33, 12), seed: int = 1) -> list[tuple[Tensor, Tensor]]:
    """Documents that end in END, about half of their tokens sampled, in no order; the end always is."""
    g = torch.Generator().manual_seed(seed)
    documents = []
    for n in lengths:
        tokens = torch.randint(4, VOCAB, (n,), generator=g)
        sampled = torch.rand(n, generator=g) < 0.5
        tokens[-1], sampled[-1] = END, True
        documents.append((tokens, sampled))
    return documents


def naive_log_probs(model: Decoder, tokens: Tensor, temperature: float = 1.0) -> Tensor:
    """log softmax [n - 1, vocab] of one document in one plain forward pass; row i predicts token i + 1."""
    n = len(tokens)
    hidden = model(tokens, packed_positions([n]), PackedAttention([n]))
    return (model.logits(hidden)[:-1] / temperature).log_softmax(-1)


def naive_score(model: Decoder, tokens: Tensor, sampled: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies of the sampled tokens of one document, one by one."""
    log_probs = naive_log_probs(model, tokens, temperature)
    at = [i for i in range(1, len(tokens)) if sampled[i]]
    chosen = [log_probs[i - 1, tokens[i]] for i in at]
    entropy = [-(log_probs[i - 1].exp() * log_probs[i - 1]).sum() for i in at]
    return torch.stack(chosen), torch.stack(entropy)


def gradients(model: Decoder) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    return found


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    assert a.keys() == b.keys()
    for name in a:
        scale = b[name].abs().max().item()
        assert scale > 0, f"{name} has no gradient to compare"
        torch.testing.assert_close(a[name] / scale, b[name] / scale, atol=tolerance, rtol=tolerance, msg=name)


def trainable(seed: int = 0) -> Decoder:
    return random_model(hf_config("qwen2"), seed).requires_grad_(True)


def random_bundle(seed: int = 0, **more) -> Bundle:
    """A small random model that speaks the tokens of the embedded one."""
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "assets/tiny")
    config = hf_config("qwen2")
    config.vocab_size, config.prompt_style = len(tokenizer), "bare"
    for name, value in more.items():
        setattr(config, name, value)
    generation = GenerationConfig.from_pretrained(ROOT / "assets/tiny")
    return Bundle(random_model(config, seed), config, tokenizer, generation)


# --------------------------------------------------------------------------------------------------------------------
# log-probs and gradients


class WatchLogits(TorchDispatchMode):
    """Sees every result, gradients too: `rows` is the largest number of rows as long as the vocabulary."""

    def __init__(self, weight: Tensor):
        super().__init__()
        self.weight, self.rows = weight.untyped_storage().data_ptr(), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        logits = isinstance(result, Tensor) and result.ndim == 2 and result.shape[1] == VOCAB
        if logits and result.untyped_storage().data_ptr() != self.weight:  # its transposed view
            self.rows = max(self.rows, len(result))
        return result


@pytest.mark.parametrize("bonus", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("rows", [0, 1, 3, 4, 1000])
def test_chunked_score_equals_plain_softmax(rows, temperature, bonus, monkeypatch):
    """A chunk that drops its last rows, forgets the temperature, or cuts off the weight's gradient, that of an entropy
    bonus included; and a "chunked" function that holds all logits after all, which is what it exists to avoid."""
    monkeypatch.setattr(training, "LOGITS_PER_CHUNK", rows * VOCAB)  # 0: the vocabulary alone is above the limit
    g = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(11, 8, generator=g), torch.randn(VOCAB, 8, generator=g)
    targets, upstream = torch.randint(VOCAB, (11,), generator=g), torch.randn(11, generator=g)
    of_entropy = torch.randn(11, generator=g)

    def loss(log_probs: Tensor, entropy: Tensor) -> Tensor:
        return (log_probs * upstream).sum() + ((entropy * of_entropy).sum() if bonus else 0)

    results = []
    for ours in (True, False):
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        if ours:
            with WatchLogits(w) as watched:
                log_probs, entropy = score(h, w, targets, temperature)
                loss(log_probs, entropy).backward()
        else:
            every = (h @ w.T / temperature).log_softmax(-1)
            log_probs, entropy = every[torch.arange(11), targets], -(every.exp() * every).sum(-1)
            loss(log_probs, entropy).backward()
        results.append((log_probs, entropy, h.grad, w.grad))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    assert watched.rows == min(max(rows, 1), 11)


ragged = st.lists(st.lists(st.booleans(), min_size=1, max_size=9), min_size=1, max_size=6)


@settings(max_examples=100, deadline=None)
@given(ragged)
@example([[True], [True, False], [False, True]])
def test_packed_rows_targets_and_owners(masks):
    """Shifted by one over the packed batch instead of within each document, the last row of a document would be
    scored on the first token of the next."""
    documents, start = [], 0
    for mask in masks:
        documents.append((torch.arange(start, start + len(mask)), torch.tensor(mask)))
        start += len(mask)
    packed = Packed(documents)
    expected, start = [], 0
    for owner, mask in enumerate(masks):
        expected += [(start + i - 1, start + i, owner) for i in range(1, len(mask)) if mask[i]]
        start += len(mask)
    assert list(zip(packed.rows.tolist(), packed.targets.tolist(), packed.owner.tolist(), strict=True)) == expected
    assert packed.tokens.tolist() == list(range(start))
    assert packed.positions.tolist() == [i for mask in masks for i in range(len(mask))]


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_packed_scores_equal_one_document_at_a_time(temperature):
    """Documents that see each other, positions that run on, or scores in another order than their owners'."""
    model, documents = random_model(hf_config("qwen2")), random_documents()
    log_probs, entropy = score_packed(model, Packed(documents), temperature)
    one_by_one = [naive_score(model, tokens, sampled, temperature) for tokens, sampled in documents]
    torch.testing.assert_close(log_probs, torch.cat([a for a, _ in one_by_one]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(entropy, torch.cat([b for _, b in one_by_one]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rows", [1000, 5])
def test_gradients_do_not_depend_on_the_micro_batch_budget(rows, monkeypatch):
    """A mean per micro-batch, or a weight looked up by the place in the micro-batch instead of the document, makes
    the update depend on how much memory there is. The judge is a loop over documents."""
    monkeypatch.setattr(training, "LOGITS_PER_CHUNK", rows * VOCAB)
    model, documents = trainable(), random_documents()
    weights = torch.linspace(-1, 2, len(documents))
    denominator = sum(int(sampled[1:].sum()) for _, sampled in documents)
    expected = 0
    for weight, (tokens, sampled) in zip(weights, documents, strict=True):
        expected = expected - weight * naive_score(model, tokens, sampled, 0.8)[0].sum() / denominator
    expected.backward()
    naive = gradients(model)
    for budget in (10_000, 60, 40, 1):
        seen: dict[int, int] = {}
        batches, total = 0, 0.0

        def loss(indices, owner, log_probs, entropy, seen=seen):
            nonlocal batches, total
            batches += 1
            for i, count in zip(indices, torch.bincount(owner, minlength=len(indices)).tolist(), strict=True):
                assert i not in seen
                seen[i] = count
            value = -(weights[indices][owner] * log_probs).sum() / denominator
            total += value.item()
            return value

        backward(model, documents, loss, budget, 0.8)
        assert_same(gradients(model), naive)
        assert total == pytest.approx(expected.item(), rel=1e-5)
        assert seen == {i: int(sampled[1:].sum()) for i, (_, sampled) in enumerate(documents)}
        assert batches == {10_000: 1, 60: 2, 40: 3, 1: 6}[budget]


def test_only_sampled_tokens_are_targets():
    """Loss on observations teaches the model to make up the interpreter's output; no loss on the end token, that a
    reply never ends. The last hidden state gets a gradient exactly where the token behind it was sampled."""
    model, documents = trainable(), random_documents()
    states: list[Tensor] = []

    def keep(module, inputs, output):
        output.retain_grad()
        states.append(output)

    handle = model.norm.register_forward_hook(keep)
    backward(model, documents, lambda indices, owner, log_probs, entropy: -log_probs.sum(), 10_000)
    handle.remove()
    touched = (states[0].grad != 0).any(-1)
    order = micro_batches([len(tokens) for tokens, _ in documents], 10_000)[0]
    expected = torch.cat([torch.cat([documents[i][1][1:], torch.tensor([False])]) for i in order])
    assert torch.equal(touched, expected)
    ends = torch.tensor([len(documents[i][0]) for i in order]).cumsum(0)
    assert touched[ends - 2].all()  # the rows that predict END

    ours = gradients(model)
    (-sum(naive_score(model, *document)[0].sum() for document in documents)).backward()
    assert_same(ours, gradients(model))


def test_log_probs_come_back_in_the_order_of_the_documents():
    """Micro-batches take the longest documents first: results returned in that order would pair an episode with the
    old log-probs of another. A document without sampled tokens must not shift its neighbours either."""
    model, documents = random_model(hf_config("qwen2")), random_documents()
    documents[3] = documents[3][0], torch.zeros(len(documents[3][0]), dtype=torch.bool)
    for budget in (10_000, 60, 1):
        found = log_probs_of(model, documents, budget, 0.9)
        for i, (tokens, sampled) in enumerate(documents):
            assert len(found[i]) == int(sampled[1:].sum()) and not found[i].requires_grad
            if i != 3:
                torch.testing.assert_close(found[i], naive_score(model, tokens, sampled, 0.9)[0], atol=1e-5, rtol=1e-5)
    assert log_probs_of(model, [], 60) == []


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 60), max_size=30), st.integers(1, 100))
def test_micro_batches_hold_every_document_once_within_the_budget(lengths, budget):
    """A document lost or doubled changes the gradient in silence; a batch above the budget ends in out of memory."""
    bins = micro_batches(lengths, budget)
    assert sorted(i for members in bins for i in members) == list(range(len(lengths)))
    assert all(members for members in bins)
    for members in bins:
        assert len(members) == 1 or sum(lengths[i] for i in members) <= budget


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0.1, 100), max_size=30), st.integers(1, 5))
def test_shares_are_even(costs, count):
    """The slowest rank decides how long an update takes; one that is forgotten trains on nothing."""
    shares = even_shares(costs, count)
    assert len(shares) == count and sorted(i for share in shares for i in share) == list(range(len(costs)))
    sums = [sum(costs[i] for i in share) for share in shares]
    assert max(sums) - min(sums) <= max(costs, default=0) + 1e-6


def test_what_a_document_costs():
    """Counted as in the forward pass: two operations a weight and token, four a number and position before it."""
    config = ModelConfig.from_hf(hf_config("qwen2"))
    model = Decoder(config)
    weights = sum(p.numel() for p in model.parameters() if p.ndim == 2)
    n, width = 50, config.num_heads * config.head_dim
    operations = 2 * n * weights + config.num_layers * sum(4 * width * position for position in range(n))
    assert document_cost(n, config) == pytest.approx(operations / (2 * weights), rel=0.01)


# --------------------------------------------------------------------------------------------------------------------
# the optimizer


def test_learning_rate_schedules():
    """A warm-up that starts at 0 wastes its first update; one that never reaches its peak, or a decay that ends high,
    trains another model than the configuration says."""
    for schedule in ("constant", "cosine", "wsd"):
        rates = [learning_rate_at(step, 100, 2.0, 4, schedule) for step in range(100)]
        assert rates[:4] == [0.5, 1.0, 1.5, 2.0]
        assert rates[4] == 2.0 == max(rates)
        assert all(a >= b for a, b in itertools.pairwise(rates[4:]))
        assert learning_rate_at(0, 100, 2.0, 0, schedule) == 2.0
        if schedule == "constant":
            assert rates[-1] == 2.0
        else:
            assert 0 < rates[-1] < 0.05
    assert [learning_rate_at(step, 10, 1.0, 0, "wsd") for step in range(10)] == pytest.approx(
        [1, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2]
    )
    assert learning_rate_at(55, 100, 2.0, 10, "cosine") == pytest.approx(1.0)
    with pytest.raises(UserError, match="'linear'"):
        learning_rate_at(50, 100, 2.0, 4, "linear")


def test_a_gradient_that_is_not_finite_changes_nothing(tmp_path):
    """One nan in one gradient is in every weight after clipping and a step, and the run is lost."""
    save_bundle(random_bundle(), tmp_path)
    policy = Policy(str(tmp_path), 1e-2, 0.1)
    before = {name: p.detach().clone() for name, p in policy.model.named_parameters()}
    for bad in (math.nan, math.inf):
        for p in policy.model.parameters():
            p.grad = torch.ones_like(p)
        policy.model.norm.weight.grad[3] = bad
        with pytest.raises(UserError, match="gradient norm"):
            policy.step(1e-2, 1.0)
        assert all(torch.equal(p, before[name]) for name, p in policy.model.named_parameters())
    for p in policy.model.parameters():
        p.grad = torch.ones_like(p)
    size = sum(p.numel() for p in policy.model.parameters())
    assert policy.step(1e-2, 1.0) == pytest.approx(math.sqrt(size), rel=1e-4)  # the norm before clipping
    assert all(p.grad is None for p in policy.model.parameters())  # or the next update would add to this one
    assert not any(torch.equal(p, before[name]) for name, p in policy.model.named_parameters())
    assert {group["lr"] for group in policy.optimizer.param_groups} == {1e-2}


def test_weight_decay_spares_vectors(tmp_path):
    """Decay on norms and biases pulls them to 0, where a norm lets nothing through."""
    save_bundle(random_bundle(), tmp_path)
    matrices, vectors = Policy(str(tmp_path), 1e-3, 0.1).optimizer.param_groups
    assert matrices["weight_decay"] == 0.1 and all(p.ndim == 2 for p in matrices["params"])
    assert vectors["weight_decay"] == 0.0 and all(p.ndim == 1 for p in vectors["params"])
    assert sum(p.numel() for g in (matrices, vectors) for p in g["params"]) == sum(
        p.numel() for p in random_bundle().model.parameters()
    )


# --------------------------------------------------------------------------------------------------------------------
# arguments


@dataclasses.dataclass
class Example:
    model: str = dataclasses.field(default="m", metadata={"help": "a name"})
    steps: int = dataclasses.field(default=3, metadata={"help": "a number"})
    rate: float = dataclasses.field(default=0.5, metadata={"help": "a rate"})
    exact: bool = dataclasses.field(default=False, metadata={"help": "a switch"})
    names: list[str] = dataclasses.field(default_factory=list, metadata={"help": "a list"})


def test_file_first_then_flags(tmp_path):
    """A file that overrides the flags makes a sweep run the same settings over and over."""
    path = tmp_path / "c.yaml"
    path.write_text("steps: 7\nrate: 1e-4\nexact: true\nnames: [a, b]\nmodel: ''\n")
    assert parse_arguments(Example, []) == Example()
    assert parse_arguments(Example, [str(path)]) == Example("", 7, 1e-4, True, ["a", "b"])
    found = parse_arguments(Example, [str(path), "--steps", "8", "--names", "c", "--exact", "false"])
    assert found == Example("", 8, 1e-4, False, ["c"])
    assert parse_arguments(Example, ["--names", "a", "b", "--exact"]).names == ["a", "b"]
    path.write_text("# nothing yet\n")
    assert parse_arguments(Example, [str(path)]) == Example()


@pytest.mark.parametrize(
    "text, argv",
    [
        (None, []),  # no such file
        ("steps: [1", []),
        ("- steps\n- rate", []),
        ("stepz: 3", []),
        ("steps: many", []),
        ("steps: 1.5", []),
        ("exact: perhaps", []),
        ("", ["--steps", "many"]),
        ("", ["--stepz", "3"]),
        ("", ["--step", "3"]),  # an abbreviation changes its meaning when a field is added
        ("", ["other.yaml"]),
    ],
)
def test_bad_arguments_end_in_one_clear_error(text, argv, tmp_path, capsys):
    """A misspelt setting that is passed over in silence costs a run; a traceback hides what is wrong with it."""
    path = tmp_path / "c.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError) as error:
        parse_arguments(Example, [str(path), *argv])
    message = str(error.value)
    assert "\n" not in message and any(word in message for word in ("c.yaml", "step", "exact", "other"))
    assert capsys.readouterr().err == ""  # nor the usage, which is as long as the list of flags


@pytest.mark.parametrize("arguments", [SFTArguments, GRPOArguments, EvaluateArguments])
def test_help_explains_every_flag(arguments, capsys):
    """A stray % in a docstring or a help line makes argparse fail in --help alone."""
    with pytest.raises(SystemExit) as stop:
        parse_arguments(arguments, ["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for field in dataclasses.fields(arguments):
        assert f"--{field.name}" in text and field.metadata["help"]


# --------------------------------------------------------------------------------------------------------------------
# run folders


def test_run_folder(tmp_path):
    """A figure whose configuration and code nobody can name is worth nothing."""
    arguments = SFTArguments(learning_rate=3e-5, data="a b.jsonl", seed=1)
    run = Run(str(tmp_path / "deep/run"), arguments)
    run.log(0, {"loss": 1.5})
    run.log(1, {"loss": 1.25, "tokens": 7})
    run.append("episodes.jsonl", [{"text": "3 × 5"}, {"text": "b"}])
    lines = (run.folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 0, "loss": 1.5}, {"step": 1, "loss": 1.25, "tokens": 7}]
    assert "×" in (run.folder / "episodes.jsonl").read_text(encoding="utf-8")
    revision = (run.folder / "revision.txt").read_text()
    assert re.fullmatch(r"([0-9a-f]{40}(-dirty)?|unknown)\n", revision)
    assert yaml.safe_load((run.folder / "config.yaml").read_text()) == dataclasses.asdict(arguments)


@pytest.mark.parametrize(
    "arguments",
    [SFTArguments(learning_rate=1e-5), GRPOArguments(deterministic=True, kl=0.001), EvaluateArguments(), Example()],
)
def test_the_configuration_of_a_run_starts_the_same_run(arguments, tmp_path):
    """config.yaml is how a run is repeated: defaults such as an empty list must survive the way through the file."""
    Run(str(tmp_path), arguments)
    assert parse_arguments(type(arguments), [str(tmp_path / "config.yaml")]) == arguments


def test_an_older_run_is_moved_aside(tmp_path, capsys):
    """Overwriting or appending to the folder of an earlier run destroys or mixes up results."""
    folder = tmp_path / "run"
    for steps in range(4):  # within one second, as short runs do
        run = Run(str(folder), Example(steps=steps))
        assert not (folder / "metrics.jsonl").exists()
        run.log(0, {"loss": steps})
    others = [path for path in tmp_path.iterdir() if path != folder]
    kept = [yaml.safe_load((path / "config.yaml").read_text())["steps"] for path in others]
    losses = [json.loads((path / "metrics.jsonl").read_text())["loss"] for path in others]
    assert sorted(kept) == sorted(losses) == [0, 1, 2]
    assert json.loads((folder / "metrics.jsonl").read_text())["loss"] == 3
    assert all(str(path) in capsys.readouterr().out for path in others[:1])


def test_unknown_tracker_is_refused(tmp_path):
    """A misspelt tracker noticed after the run is a curve that was never recorded."""
    with pytest.raises(UserError, match="unknown tracker 'wandbb': one of tensorboard, wandb"):
        Run(str(tmp_path / "run"), Example(), report_to="wandbb")


@pytest.mark.parametrize("kind", [UserError, SandboxError, ValueError, FileNotFoundError, KeyError])
def test_errors_of_the_user_are_one_line(kind):
    """A newcomer's first mistake must not be answered with a traceback, nor a bug of ours with less than one: a
    ValueError is the user's only around what was done with the user's input."""

    def main():
        raise kind("mend this")

    def reading():
        with user_input():
            main()

    if kind in (UserError, SandboxError):
        with pytest.raises(SystemExit) as stop:
            run_main(main)
        # Python prints a text given as exit code, without a traceback, and exits with 1.
        assert isinstance(stop.value.code, str) and re.fullmatch(r".+: mend this", stop.value.code)
    else:
        with pytest.raises(kind):
            run_main(main)
    with pytest.raises(KeyError if kind is KeyError else SystemExit, match="mend this"):
        run_main(reading)


# --------------------------------------------------------------------------------------------------------------------
# checkpoints


def test_a_write_that_fails_leaves_the_old_folder(tmp_path):
    """A full disk while saving must not cost the checkpoint of an hour ago."""
    folder = tmp_path / "a/checkpoint"
    with atomic_folder(folder) as temporary:
        (temporary / "weights").write_text("old")
        assert not folder.exists()
    for error in (OSError, KeyboardInterrupt):
        with pytest.raises(error), atomic_folder(folder) as temporary:
            (temporary / "weights").write_text("half")
            raise error
        assert [p.name for p in folder.parent.iterdir()] == ["checkpoint"]
        assert [p.read_text() for p in folder.iterdir()] == ["old"]
    with atomic_folder(folder) as temporary:
        (temporary / "other").write_text("new")
    assert [p.name for p in folder.parent.iterdir()] == ["checkpoint"]
    assert [(p.name, p.read_text()) for p in folder.iterdir()] == [("other", "new")]  # nothing left of the old one


def test_a_saved_bundle_comes_back_whole(tmp_path):
    """End tokens or prompt style lost on the way: the model would run past its end, or be asked in another form than
    it was trained with. And transformers must read the folder as it is."""
    bundle = random_bundle()
    save_bundle(bundle, tmp_path / "c")
    again = load_bundle(str(tmp_path / "c"))
    for (name, a), (other, b) in zip(bundle.model.named_parameters(), again.model.named_parameters(), strict=True):
        assert name == other and torch.equal(a, b)
    assert again.end_ids == bundle.end_ids == [2, 0]
    assert again.end_id == bundle.end_id and again.prompt_style == "bare"
    text = "Is 3 × 5 = 15? <<<yes>>>"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "c")
    tokens = bundle.tokenizer.encode(text)
    assert again.tokenizer.encode(text) == tokenizer.encode(text) == tokens
    message = [{"role": "user", "content": text}]
    assert tokenizer.apply_chat_template(message, tokenize=False) == bundle.tokenizer.apply_chat_template(
        message, tokenize=False
    )
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "c", dtype=torch.float32)
    expected = theirs(torch.tensor([tokens])).logits[0].log_softmax(-1)[:-1]
    torch.testing.assert_close(naive_log_probs(again.model, torch.tensor(tokens)), expected, atol=1e-5, rtol=1e-5)
    assert theirs.generation_config.eos_token_id == [2, 0]
