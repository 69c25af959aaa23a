"""The generator against a naive loop of full forward passes."""

import copy
import gc
import os
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from generator import Generator, Sequence
from model import Decoder, PackedAttention, packed_positions
from sampling import nucleus, sample, sampling_key, uniforms
from tests.conftest import hf_config, random_model
from throughput import GeneratorStats

VOCAB, END, WATCHED = 101, 3, (5, 6, 7)

# "replayed": what a GPU does, as far as a CPU can: passes of fixed shape, several of them between two looks.
# Of the test that loses no slot. It passes with 10,000, too.
EPISODES = int(os.environ.get("EPISODES", "2000"))

REPLAYED = {"capture": lambda function: function, "passes": 3}
BACKENDS = {"eager": ("cpu", {}), "replayed": ("cpu", REPLAYED), "cuda": ("cuda", {})}
on_every_backend = pytest.mark.parametrize(
    "backend", ["eager", "replayed", pytest.param("cuda", marks=pytest.mark.gpu)]
)


def naive_logits(model: Decoder, tokens: torch.Tensor) -> torch.Tensor:
    """float32 [n, vocab], on the CPU."""
    n, device = len(tokens), model.embed_tokens.weight.device
    hidden = model(tokens.to(device), packed_positions([n], device), PackedAttention([n], device))
    return model.logits(hidden).float().cpu()


def generate(
    model, prompts, slots=4, temperature=1.0, seed=0, tools=None, max_new_tokens=40, order=None, **more
) -> list[Sequence]:
    """Runs all prompts, which arrive in `order`; after a watched token a sequence is parked for a few steps and resumed
    with an observation that depends on what it has written. `tools`: random delays; None lets watched tokens pass."""
    watch = torch.zeros(VOCAB, dtype=torch.bool)
    watch[list(WATCHED)] = True
    generator = Generator(model, slots, 128, watch, [END], temperature, **more)
    arrived = {
        i: generator.add(prompts[i], sampling_key(seed, 0, i), max_new_tokens, group=tuple(prompts[i]))
        for i in order or range(len(prompts))
    }
    sequences = [arrived[i] for i in range(len(prompts))]
    parked: list[tuple[int, Sequence]] = []
    while generator.busy or parked:
        for sequence in generator.step():
            if tools and not sequence.ended and len(generator.turn_tokens(sequence)) > 2:
                generator.park(sequence)
                parked.append((generator.steps + tools.randrange(6), sequence))
        due = [p for p in parked if p[0] <= generator.steps or not generator.busy]
        for item in due:
            parked.remove(item)
            last = generator.turn_tokens(item[1])[-1]
            generator.resume(item[1], [10 + last, 11, 12, 13][: 1 + last % 4])
    assert not generator.queue and not generator.leaders and all(owner is None for owner in generator.owner)
    return sequences


def ragged_prompts(count: int = 11, seed: int = 0) -> list[list[int]]:
    r = random.Random(seed)
    return [[r.randrange(8, VOCAB) for _ in range(r.choice((1, 2, 3, 17, 40)))] for _ in range(count)]


def distance_from_cdf(model: Decoder, sequence: Sequence, key: int, temperature: float, top_p: float = 1.0) -> float:
    """How far the uniforms lie outside the intervals of the sampled tokens, by a naive forward pass, at most."""
    positions = sequence.sampled.nonzero()[:, 0]
    probabilities = (naive_logits(model, sequence.tokens)[positions - 1] / temperature).softmax(-1).double()
    cdf = nucleus(probabilities, top_p).cumsum(-1)
    u = uniforms(torch.full_like(positions, key), positions) * cdf[:, -1]
    token = sequence.tokens[positions, None]
    lower, upper = F.pad(cdf, (1, 0)).gather(1, token)[:, 0], cdf.gather(1, token)[:, 0]
    return float(torch.maximum(lower - u, u - upper).max())


def logprob_gaps(model: Decoder, sequence: Sequence, temperature: float = 1.0) -> torch.Tensor:
    """|stored - naive| log-prob of every sampled token, relative where it is below -1. Others must have 0."""
    assert (sequence.logprobs[~sequence.sampled] == 0).all()
    positions = sequence.sampled.nonzero()[:, 0]
    naive = (naive_logits(model, sequence.tokens)[positions - 1] / temperature).log_softmax(-1)
    naive = naive.gather(1, sequence.tokens[positions, None])[:, 0]
    return (naive - sequence.logprobs[positions]).abs() / naive.abs().clamp(min=1)


@on_every_backend
def test_greedy_equals_naive_full_forward_on_a_ragged_batch(backend, tiny):
    """A cache that is off by one, a slot that sees its neighbour, or a wrong position shows in the first tokens."""
    device, more = BACKENDS[backend]
    model = copy.deepcopy(tiny).to(device)
    for sequence in generate(model, ragged_prompts(), temperature=0, **more):
        tokens = list(sequence.prompt)
        while len(tokens) < len(sequence.tokens):
            tokens.append(int(naive_logits(model, torch.tensor(tokens))[-1].argmax()))
        assert tokens == sequence.tokens.tolist()
        assert sequence.ended == ("end" if tokens[-1] == END else "length")


@on_every_backend
@pytest.mark.parametrize("temperature, top_p", [(1.0, 1.0), (0.6, 1.0), (1.0, 0.8)])
@pytest.mark.parametrize("prefill_tokens", [1024, 7])
def test_sampled_tokens_lie_in_their_cdf_interval(backend, temperature, top_p, prefill_tokens, tiny):
    """Greedy checks do not see a wrong temperature, a log-prob of another distribution, or a mutated cache: this does.
    With groups (a copied prompt), parking, observations, and prompts in chunks."""
    device, more = BACKENDS[backend]
    model = copy.deepcopy(tiny).to(device)
    prompts = [p for p in ragged_prompts(9) for _ in range(3)]
    more = {**more, "top_p": top_p, "prefill_tokens": prefill_tokens}
    sequences = generate(model, prompts, 6, temperature, tools=random.Random(1), **more)
    for i, sequence in enumerate(sequences):
        assert distance_from_cdf(model, sequence, sampling_key(0, 0, i), temperature, top_p) < 1e-5
        assert logprob_gaps(model, sequence, temperature).max() < 1e-5
    assert sum(int((~s.sampled).sum()) - len(s.prompt) for s in sequences) > 10  # observations


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_half_precision_stays_near_the_naive_forward(device, tiny):
    """A real mistake, such as a mask in the wrong dtype, moves log-probs by whole nats, rounding by hundredths: bf16
    has 8 bits, and logits of this model reach 10."""
    model = copy.deepcopy(tiny).to(device, torch.bfloat16)
    for temperature in (0, 1.0):
        sequences = generate(model, ragged_prompts(20), 6, temperature, tools=random.Random(1))
        gaps = torch.cat([logprob_gaps(model, sequence) for sequence in sequences])
        assert gaps.mean() < 0.02 and gaps.max() < 0.2
        for i, sequence in enumerate(sequences):
            if temperature:
                assert distance_from_cdf(model, sequence, sampling_key(0, 0, i), 1.0) < 0.02
            else:
                positions = sequence.sampled.nonzero()[:, 0]
                logits = naive_logits(model, sequence.tokens)[positions - 1]
                chosen = logits.gather(1, sequence.tokens[positions, None])[:, 0]
                assert (logits.max(-1).values - chosen).max() < 0.2


def test_sampled_marks_exactly_the_tokens_of_the_model(tiny):
    """The end token is the model's choice and must get gradient; prompt and observation tokens must not."""
    sequences = generate(tiny, ragged_prompts(), tools=random.Random(2))
    for sequence in sequences:
        n = len(sequence.prompt)
        expected, i = [False] * n, n
        tokens = sequence.tokens.tolist()
        turn = 0
        while i < len(tokens):  # replays the rule of `generate`: what follows a watched token of a turn longer than 2
            expected.append(True)
            i, turn = i + 1, turn + 1
            last = tokens[i - 1]
            if last in WATCHED and turn > 2 and i < len(tokens):
                expected += [False] * (1 + last % 4)
                i, turn = i + 1 + last % 4, 0
        assert sequence.sampled.tolist() == expected
        if sequence.ended == "end":
            assert tokens[-1] == END and sequence.sampled[-1]
    assert any(s.ended == "end" for s in sequences) and any(s.ended == "length" for s in sequences)


def test_same_seed_same_tokens_whatever_the_slots_delays_and_arrival(tiny):
    """Sampling from a shared random stream would make an episode depend on who else is in the batch. Rounding may turn
    a token whose uniform lies within 1e-5 of an edge of the CDF, nothing else."""
    prompts = [p for p in ragged_prompts(8) for _ in range(2)]
    one = generate(tiny, prompts, slots=4, tools=random.Random(3))
    order = random.Random(5).sample(range(16), 16)
    many = generate(tiny, prompts, slots=16, tools=random.Random(4), prefill_tokens=16, order=order)
    for i, (a, b) in enumerate(zip(one, many, strict=True)):
        same = min(len(a.tokens), len(b.tokens))
        differ = (a.tokens[:same] != b.tokens[:same]).nonzero()
        if len(differ):
            at = int(differ[0])
            cdf = naive_logits(tiny, a.tokens[:at])[-1].log_softmax(-1).double().exp().cumsum(-1)
            u = uniforms(torch.tensor([sampling_key(0, 0, i)]), torch.tensor([at]))
            assert (cdf - u).abs().min() < 1e-5
        else:
            assert len(a.tokens) == len(b.tokens)
    other = generate(tiny, prompts, slots=4, seed=1, tools=random.Random(3))
    assert any(a.tokens.tolist() != b.tokens.tolist() for a, b in zip(one, other, strict=True))


def test_busy_slots_are_counted(tiny):
    """The share of busy slots is what one looks at to choose --slots: a sequence alone in four keeps a quarter busy."""
    watch = torch.zeros(VOCAB, dtype=torch.bool)
    for count, share in ((1, 0.25), (4, 1.0)):
        generator = Generator(tiny, 4, 128, watch, [], 1.0)
        for i in range(count):
            generator.add([9, 10, 11], sampling_key(0, 0, i), 8, group=i)
        while generator.busy:
            generator.step()
        assert generator.stats.busy_passes == pytest.approx(share * generator.stats.passes)


def test_group_prompt_is_prefilled_once(tiny):
    """Prefilling the prompt for each of 16 samples is the largest avoidable cost of a group."""
    watch = torch.zeros(VOCAB, dtype=torch.bool)
    generator = Generator(tiny, 4, 128, watch, [END], 1.0)
    for i in range(16):
        generator.add(list(range(20, 60)), sampling_key(i), 5, group="g")
    while generator.busy:
        generator.step()
    assert generator.stats.prefilled_tokens == 40


@pytest.mark.parametrize("length", [1, 8, 9, 17])
def test_a_group_does_not_wait_for_the_tool_of_its_first(length, tiny):
    """A prompt whose last token came in alone did not count as prefilled: its group waited until the first reply was
    over, and for ever if that one was parked until something had been generated."""
    watch = torch.zeros(VOCAB, dtype=torch.bool)
    generator = Generator(tiny, 3, 128, watch, [END], prefill_tokens=8)
    first, *others = [generator.add(list(range(20, 20 + length)), sampling_key(i), 10, "g") for i in range(5)]
    while not generator.turn_tokens(first) if first.slot >= 0 else True:
        generator.step()
    generator.park(first)
    while generator.busy:
        generator.step()
    assert all(sequence.ended for sequence in others) and not first.ended
    generator.resume(first, [30, 31])
    while generator.busy:
        generator.step()
    assert first.ended and generator.stats.prefilled_tokens <= length + 3


def test_prompts_are_prefilled_again_once_the_weights_have_changed(tiny):
    """What lies in the cache was computed by the old weights: a prompt copied from there is another policy's."""
    model = copy.deepcopy(tiny)
    watch = torch.zeros(VOCAB, dtype=torch.bool)
    generator = Generator(model, 4, 128, watch, [END])
    for step in range(2):
        stats = GeneratorStats()
        generator.restart(1.0, 1.0, stats)
        sequences = [generator.add(list(range(20, 60)), sampling_key(0, step, i), 20, "g") for i in range(6)]
        while generator.busy:
            generator.step()
        assert stats.prefilled_tokens == 40
        assert max(logprob_gaps(model, sequence).max() for sequence in sequences) < 1e-5
        for parameter in model.parameters():  # as an optimizer does: in place
            parameter.mul_(1.1)
    generator.add([1, 2], 0, 20, "g")
    with pytest.raises(AssertionError, match="not done"):
        generator.restart(1.0, 1.0, stats)


def test_fused_projections_follow_the_weights(tiny):
    """A fused copy that is not the parameters' own storage goes stale with the first update, `.to` or loaded weight,
    and generates from a policy that nobody trains."""
    model = copy.deepcopy(tiny)
    model.fuse()
    tokens = torch.arange(20, 40)

    def both() -> tuple[torch.Tensor, torch.Tensor]:
        fused = naive_logits(model, tokens)
        for layer in model.layers:
            layer.self_attn.fused = layer.mlp.fused = None
        plain = naive_logits(model, tokens)
        model.fuse()
        return fused, plain

    for change in (
        lambda: [parameter.mul_(0.9) for parameter in model.parameters()],
        lambda: model.load_state_dict({name: value * 1.1 for name, value in model.state_dict().items()}),
        lambda: (model.double(), model.float(), model.fuse()),
    ):
        change()
        fused, plain = both()
        torch.testing.assert_close(fused, plain, atol=1e-5, rtol=1e-5)


def test_recorded_passes_follow_what_they_were_recorded_with(tiny):
    """A CUDA graph reads and writes the addresses of its recording, whatever has become of them; and a shape or a way
    of sampling for which the recording of another is replayed is silently wrong."""
    model, recorded = copy.deepcopy(tiny), []

    def addresses() -> list[int]:
        kept = [generator.state, generator.tokens, generator.sampled, generator.logprobs, *model.parameters()]
        return [
            tensor.data_ptr() for tensor in (*kept, *(store for layer in generator.cache.layers for store in layer))
        ]

    def capture(function):
        recorded.append(addresses())
        function()  # CUDA wants it to warm up

        def replay():
            assert addresses() == recorded[-1]
            function()

        return replay

    watch = torch.zeros(VOCAB, dtype=torch.bool)
    generator = Generator(model, 6, 128, watch, [END], capture=capture, passes=2)

    def run(temperature: float, new: int = 12) -> None:
        generator.restart(temperature, 1.0, GeneratorStats())
        sequences = [generator.add([20 + i], sampling_key(i), new, i) for i in range(6)]
        while generator.busy:
            generator.step()
        for i, sequence in enumerate(sequences):
            assert len(sequence.tokens) == 1 + new or sequence.tokens[-1] == END
            if temperature:
                assert distance_from_cdf(model, sequence, sampling_key(i), temperature) < 1e-5
            else:
                assert sequence.tokens[1] == naive_logits(model, torch.tensor(sequence.prompt))[-1].argmax()

    run(1.0, new=1)
    run(1.0)
    first = len(recorded)
    assert 1 <= first <= 4  # 6 slots, and 4, 2, 1 while the last ones end
    run(1.0)
    assert len(recorded) == first  # replayed
    run(0.5)
    run(0.0)
    assert len(recorded) == 3 * first
    for parameter in model.parameters():
        parameter.data = parameter.data * 1.2  # elsewhere
    run(1.0)
    assert len(recorded) == 4 * first


class Recording(TorchDispatchMode):
    """What a pass reads or writes and has not made itself, which a CUDA graph knows by its address alone; and how often
    it assigns a value of the host's."""

    def __init__(self):
        super().__init__()
        self.made: dict[int, object] = {}
        self.outside: dict[int, StorageWeakRef] = {}
        self.from_host = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        for tensor in (leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)):
            storage = tensor.untyped_storage()
            if storage._cdata not in self.made:
                self.outside.setdefault(storage._cdata, StorageWeakRef(storage))
        if operation in (torch.ops.aten.index_put_.default, torch.ops.aten._index_put_impl_.default):
            self.from_host += args[2].dim() == 0 and args[2].untyped_storage()._cdata not in self.made
        found = operation(*args, **(kwargs or {}))
        for tensor in (leaf for leaf in tree_leaves(found) if isinstance(leaf, torch.Tensor)):
            if (storage := tensor.untyped_storage())._cdata not in self.outside:
                self.made[storage._cdata] = storage
        return found


def test_what_a_graph_needs_outlives_its_recording(tiny):
    """A graph owns nothing that it reads: an index that went away with the call that recorded it would be somebody
    else's numbers at the next replay. And none may be recorded that copies from the host."""
    recordings = []

    def capture(function):
        with Recording() as recording:
            function()
        recording.made.clear()
        recordings.append(recording)
        return lambda: None  # like a graph, it does not hold the function

    watch = torch.zeros(VOCAB, dtype=torch.bool)
    generator = Generator(tiny, 4, 64, watch, [END], capture=capture, passes=1)
    for i in range(4):
        generator.add([20 + i, 21], sampling_key(i), 8, i)
    for _ in range(2):
        generator.step()
    gc.collect()
    (recording,) = recordings
    assert len(recording.outside) > 10 and not any(ref.expired() for ref in recording.outside.values())
    assert recording.from_host == 0


@pytest.mark.parametrize("backend, episodes", [("eager", EPISODES), ("replayed", EPISODES // 5)])
def test_no_slot_is_lost_over_many_episodes(backend, episodes):
    """Whatever ends a sequence, and whenever: while it waits, prefills, decodes or is parked, alone or as the one whose
    prompt its group waits for. A slot that is lost, or held twice, shows only after hours."""
    config = hf_config("qwen2")
    config.num_hidden_layers = 1
    model, r = random_model(config), random.Random(0)
    watch = torch.zeros(VOCAB, dtype=torch.bool)
    watch[list(WATCHED)] = True
    generator = Generator(model, 16, 48, watch, [END, 8, 9, 10], prefill_tokens=20, **BACKENDS[backend][1])
    live: dict[Sequence, None] = {}
    parked: dict[Sequence, None] = {}
    added, done = 0, []

    def end(sequence: Sequence) -> None:
        assert sequence.ended and sequence.slot == -1 and len(sequence.tokens) == len(sequence.sampled)
        assert sequence.tokens[: len(sequence.prompt)].tolist() == sequence.prompt
        assert len(sequence.tokens) <= sequence.max_length
        del live[sequence]
        parked.pop(sequence, None)
        done.append(sequence)

    while added < episodes or live:
        while added < episodes and len(live) < 40:
            prompt, group = [r.randrange(11, VOCAB) for _ in range(r.choice((1, 2, 30)))], added
            for _ in range(r.choice((1, 1, 5))):
                live[generator.add(prompt, sampling_key(added), r.choice((1, 4, 40)), group)] = None
                added += 1
        for sequence in generator.step():
            if sequence.ended:
                end(sequence)
            elif r.random() < 0.5:
                generator.park(sequence)
                parked[sequence] = None
        for sequence in [s for s in parked if r.random() < 0.5]:
            del parked[sequence]
            if not generator.resume(sequence, [11] * r.choice((1, 2, 9, 30))):
                end(sequence)
        if r.random() < 0.3:
            cancelled = r.choice(list(live) or [None])
            if cancelled is not None:
                generator.finish(cancelled)
                end(cancelled)
        owned = [(slot, owner) for slot, owner in enumerate(generator.owner) if owner is not None]
        assert all(owner.slot == slot and owner in live for slot, owner in owned)
        assert len(owned) + len(generator.queue) == len(live)
        assert {slot for slot, owner in owned if owner not in parked} == {*np.flatnonzero(generator.running)}
        assert all(leader in live for leader in generator.leaders.values())
    assert len({*done}) == len(done) == added >= episodes
    assert not generator.queue and not generator.leaders and generator.owner == [None] * 16
    assert {"end", "length", "finished"} == {sequence.ended for sequence in done}


def test_uniforms_are_uniform_and_do_not_repeat():
    """Keys of neighbouring episodes and positions must not give correlated samples."""
    keys = torch.tensor([sampling_key(0, step, episode) for step in range(4) for episode in range(64)])
    u = uniforms(keys[:, None].expand(-1, 200), torch.arange(200).expand(256, 200)).flatten()
    assert u.min() >= 0 and u.max() < 1 and len(u.unique()) == len(u)
    counts = torch.histc(u, 50, 0, 1)
    assert ((counts - 1024).pow(2) / 1024).sum() < 85  # chi square, 49 degrees of freedom, p = 0.001
    grid = u.view(256, 200)
    for a, b in ((grid[:, 1:], grid[:, :-1]), (grid[1:], grid[:-1])):
        assert np.corrcoef(a.flatten(), b.flatten())[0, 1] == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("top_p, kept", [(1e-9, [1]), (0.5, [1]), (0.51, [1, 3]), (0.8, [1, 3]), (0.82, [0, 1, 3])])
def test_the_nucleus_is_the_smallest_set_with_enough_mass(top_p, kept):
    """One token too many or too few; and among equals the first."""
    probabilities = torch.tensor([[0.125, 0.5, 0.0625, 0.3125], [0.25, 0.25, 0.25, 0.25]])
    left = nucleus(probabilities, top_p)
    assert left[0].nonzero()[:, 0].tolist() == kept
    assert torch.equal(left[0][kept], probabilities[0][kept])
    assert left[1].nonzero()[:, 0].tolist() == list(range(int(np.ceil(top_p / 0.25))))


def test_sampling_never_takes_an_impossible_token():
    """u = 0 with a leading zero-probability token, and u just below 1, are where an inverse CDF goes wrong."""
    logits = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]] * 2)
    tokens, logprobs = sample(logits, 1.0, torch.tensor([0.0, 1 - 2.0**-53], dtype=torch.float64))
    assert tokens.tolist() == [1, 2]
    assert logprobs.tolist() == pytest.approx([-np.log(2)] * 2)


def test_prompt_that_does_not_fit_is_refused(tiny):
    """Cut silently, an over-long question would be answered from its first half."""
    generator = Generator(tiny, 2, 16, torch.zeros(VOCAB, dtype=torch.bool), [END])
    with pytest.raises(ValueError, match="a prompt of 16 tokens does not fit a context of 16"):
        generator.add(list(range(16)), 0, 8, "g")
