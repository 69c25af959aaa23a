"""The generator against a naive loop of full forward passes."""

import random

import numpy as np
import pytest
import torch

from generator import Generator, Sequence, sample, sampling_key, uniforms
from model import Decoder, PackedAttention, packed_positions

VOCAB, END, WATCHED = 101, 3, (5, 6, 7)


def naive_logits(model: Decoder, tokens: torch.Tensor) -> torch.Tensor:
    n = len(tokens)
    return model.logits(model(tokens, packed_positions([n]), PackedAttention([n])))


def generate(model, prompts, slots=4, temperature=1.0, seed=0, tools=None, max_new_tokens=40, **more) -> list[Sequence]:
    """Runs all prompts; after a watched token a sequence is parked for a few steps and resumed with an observation that
    depends on what it has written. `tools`: random delays; None lets watched tokens pass."""
    watch = torch.zeros(VOCAB, dtype=torch.bool)
    watch[list(WATCHED)] = True
    generator = Generator(model, slots, 128, watch, [END], temperature, **more)
    sequences = [
        generator.add(prompt, sampling_key(seed, 0, i), max_new_tokens, group=tuple(prompt))
        for i, prompt in enumerate(prompts)
    ]
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
    assert not generator.queue and not generator.prefixes and all(owner is None for owner in generator.owner)
    return sequences


def ragged_prompts(count: int = 11, seed: int = 0) -> list[list[int]]:
    r = random.Random(seed)
    return [[r.randrange(8, VOCAB) for _ in range(r.choice((1, 2, 3, 17, 40)))] for _ in range(count)]


def test_greedy_equals_naive_full_forward_on_a_ragged_batch(tiny):
    """A cache that is off by one, a slot that sees its neighbour, or a wrong position shows in the first tokens."""
    for sequence in generate(tiny, ragged_prompts(), temperature=0):
        tokens = list(sequence.prompt)
        while len(tokens) < len(sequence.tokens):
            tokens.append(int(naive_logits(tiny, torch.tensor(tokens))[-1].argmax()))
        assert tokens == sequence.tokens.tolist()
        assert sequence.ended == ("end" if tokens[-1] == END else "length")


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("prefill_tokens", [1024, 7])
def test_sampled_tokens_lie_in_their_cdf_interval(tiny, temperature, prefill_tokens):
    """Greedy checks do not see a wrong temperature, a log-prob of another distribution, or a mutated cache: this does.
    With groups (a copied prompt), parking, observations, and prompts in chunks."""
    prompts = [p for p in ragged_prompts(9) for _ in range(3)]
    sequences = generate(tiny, prompts, 6, temperature, tools=random.Random(1), prefill_tokens=prefill_tokens)
    observed = 0
    for i, sequence in enumerate(sequences):
        logits = naive_logits(tiny, sequence.tokens)[:-1] / temperature
        log_probs = logits.log_softmax(-1)
        cdf = log_probs.double().exp().cumsum(-1)
        positions = sequence.sampled.nonzero()[:, 0]
        u = uniforms(torch.full_like(positions, sampling_key(0, 0, i)), positions)
        token, row = sequence.tokens[positions], positions - 1
        upper = cdf[row, token]
        assert ((upper - log_probs[row, token].double().exp() - 1e-5 <= u) & (u <= upper + 1e-5)).all()
        torch.testing.assert_close(sequence.logprobs[positions], log_probs[row, token], atol=1e-5, rtol=1e-5)
        assert (sequence.logprobs[~sequence.sampled] == 0).all()
        observed += int((~sequence.sampled).sum()) - len(sequence.prompt)
    assert observed > 10


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


def test_same_seed_same_tokens_whatever_the_slots_and_delays(tiny):
    """Sampling from a shared random stream would make an episode depend on who else is in the batch. Rounding may turn
    a token whose uniform lies within 1e-5 of an edge of the CDF, nothing else."""
    prompts = [p for p in ragged_prompts(8) for _ in range(2)]
    one = generate(tiny, prompts, slots=4, tools=random.Random(3))
    many = generate(tiny, prompts, slots=16, tools=random.Random(4), prefill_tokens=16)
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


def test_group_prompt_is_prefilled_once(tiny):
    """Prefilling the prompt for each of 16 samples is the largest avoidable cost of a group."""
    watch = torch.zeros(VOCAB, dtype=torch.bool)
    generator = Generator(tiny, 4, 128, watch, [END], 1.0)
    for i in range(16):
        generator.add(list(range(20, 60)), sampling_key(i), 5, group="g")
    while generator.busy:
        generator.step()
    assert generator.prefilled_tokens == 40


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
