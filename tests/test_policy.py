"""What is trained, and what is kept of it: precision under FSDP, the optimizer's state, full disks, signals."""

import asyncio
import resource
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from accelerate import PartialState
from test_training import random_bundle, random_documents

import checkpoint
import cli
import training
from checkpoint import Checkpoints, load_bundle, save_bundle
from cli import ROOT, run_main
from training import Policy, log_probs_of, shard

TINY = str(ROOT / "assets/tiny")


@pytest.fixture(scope="module", autouse=True)
def on_cpu():
    PartialState(cpu=True)  # the first call decides, also where there is a GPU


@pytest.fixture
def model(tmp_path) -> str:
    save_bundle(random_bundle(), tmp_path / "model")
    return str(tmp_path / "model")


def steps(policy: Policy) -> set[float]:
    return {float(state["step"]) for state in policy.optimizer.state.values()}


def trained(policy: Policy, updates: int) -> list[torch.Tensor]:
    """The weights after so many updates."""
    for _ in range(updates):
        for parameter in policy.model.parameters():
            parameter.grad = torch.full_like(parameter, 0.5)
        policy.step(1e-2, 1.0)
    return [parameter.detach().clone() for parameter in policy.model.parameters()]


@pytest.mark.skipif(torch.cuda.is_available(), reason="FSDP would take the GPU")
def test_sharded_weights_compute_in_bf16_as_the_copy_does(monkeypatch):
    """FSDP casts what goes into a layer, too, if it is let: the angles of RoPE in bf16, where the model that generates
    has them in fp32. Every token on a GPU was off-policy, by 0.05 on average, and no test on a CPU saw it."""
    gpu = SimpleNamespace(num_processes=1, device=torch.device("cuda"))
    with monkeypatch.context() as patch:
        patch.setattr(training, "PartialState", lambda: gpu)
        sharded = shard(load_bundle(TINY, torch.float32).model)
    try:
        copy = load_bundle(TINY, torch.bfloat16).model
        documents = [(tokens % 1024, sampled) for tokens, sampled in random_documents((400, 200))]
        for one, other in zip(*(log_probs_of(m, documents, 1000) for m in (sharded, copy)), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    finally:
        dist.destroy_process_group()


def test_a_checkpoint_of_before_the_first_update_changes_nothing(model, tmp_path):
    """For an optimizer without a state to have one, torch makes it take a step: Adam's bias correction was that of the
    second update in the first, after a save as after a resume."""
    expected = trained(Policy(model, 1e-2), 2)
    saved, resumed = Policy(model, 1e-2), Policy(model, 1e-2)
    saved.save(tmp_path / "trainer")
    resumed.load(tmp_path / "trainer")
    assert steps(saved) == steps(resumed) == {0.0}
    for policy in (saved, resumed):
        for weight, wanted in zip(trained(policy, 2), expected, strict=True):
            assert torch.equal(weight, wanted)
    saved.save(tmp_path / "later")
    resumed.load(tmp_path / "later")
    assert steps(resumed) == {2.0}


def test_a_resumed_run_decays_as_it_was_told(model, tmp_path):
    """`goes on ..., with weight_decay 0.5 (was 0.01)` was said, and the stored 0.01 taken."""
    before = Policy(model, 1e-2, 0.01)
    before.save(tmp_path / "trainer")
    after = Policy(model, 1e-2, 0.5)
    after.load(tmp_path / "trainer")
    assert [group["weight_decay"] for group in after.optimizer.param_groups] == [0.5, 0.0]


def test_a_disk_that_is_full_before_the_weights_come(model, tmp_path):
    """The optimizer is the larger part and written first, by torch, whose exception is no Exception: a traceback."""
    policy, limits = Policy(model, 1e-2), resource.getrlimit(resource.RLIMIT_FSIZE)

    def save() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**12, limits[1]))
        try:
            Checkpoints(tmp_path / "run", 2).save(1, policy.bundle, policy.save, {"step": 1})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    with pytest.raises(SystemExit, match=r"step-000001: File too large"):
        run_main(save)
    assert not list((tmp_path / "run/checkpoints").iterdir())


def test_the_best_checkpoint_survives_a_kill(model, tmp_path, monkeypatch):
    """Killed while old checkpoints went, behind a state that knew of the best one and before the link to it: nothing
    was ever better again, and the best was thrown away."""
    bundle, kept = load_bundle(model), Checkpoints(tmp_path / "run", 1)

    def save(step: int, best: bool) -> None:
        kept.save(step, bundle, lambda folder: None, {"step": step}, best)

    save(1, True)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoint.Checkpoints, "_prune", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        save(2, True)
    assert kept.state(kept.last()) == {"step": 2} and (tmp_path / "run/best").resolve().name == "step-000002"
    save(3, False)
    save(4, False)
    assert sorted(path.name for path in kept.folder.iterdir()) == ["step-000002", "step-000004"]


def test_signals_that_come_twice(monkeypatch):
    """SLURM tells every process, and torchrun tells its own again: the second one killed them while they saved."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        for launched, action in ((True, signal.SIG_IGN), (False, signal.SIG_DFL)):
            monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
            if not launched:
                monkeypatch.delenv("TORCHELASTIC_RUN_ID")
            signals = cli.Signals()
            with signals.waiting():
                signals.arrive(signal.SIGTERM)
            assert signals.number == signal.SIGTERM and signal.getsignal(signal.SIGTERM) == action
    finally:
        signal.signal(signal.SIGTERM, before)


def test_signals_reach_the_end_of_an_event_loop():
    """What is raised while asyncio calls back is logged, and the run goes on, deaf to the next signal."""

    async def hours() -> None:
        asyncio.get_running_loop().call_later(0, cli.Signals().arrive, signal.SIGUSR1)
        await asyncio.sleep(20)

    before = signal.getsignal(signal.SIGUSR1)
    try:
        with pytest.raises(cli.Stopped):
            asyncio.run(hours())
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_the_run_folder_is_named_where_torch_says_nothing(tmp_path, monkeypatch):
    """What fails on another rank comes without its cause: only the disk itself can tell."""
    error = training.CheckpointException("save", {1: (RuntimeError("unexpected pos 64 vs 0"), None)})
    with pytest.raises(RuntimeError, match="unexpected pos"), training.machine_errors(Path(tmp_path / "trainer")):
        raise error
    monkeypatch.setattr(training.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(OSError, match="No space left on device"), training.machine_errors(tmp_path / "trainer"):
        raise error
