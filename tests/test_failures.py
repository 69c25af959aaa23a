"""What a machine can fail at: no sandbox, full disks, signals, memory, a rank that dies. Each ends in one line that
says what is kept; nothing half-written has a final name, and nothing computed is lost that could be kept."""

import contextlib
import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import PartialState
from safetensors.torch import load_file
from test_errors import FLAGS, SCRIPTS, TINY, line, run
from test_rollout import CODE, result
from test_rollout import scripted as rollout_of
from test_training import random_bundle

import checkpoint
import cli
import evaluate
import executor
import grpo
import scripted
import sft
import slots
import training
from checkpoint import atomic_folder, load_bundle, save_bundle, write_whole, writing
from cli import ROOT, Run, run_main
from executor import Executor, SandboxError


@pytest.fixture(scope="module", autouse=True)
def on_cpu():
    PartialState(cpu=True)  # the first call decides, also where there is a GPU


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A whole model folder, small."""
    save_bundle(random_bundle(), tmp_path / "model")
    return tmp_path / "model"


def children() -> set[str]:
    return {pid for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()}


@contextlib.contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes: writes fail half-way, as on a full disk, in Python and in Rust."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


TOO_LARGE = os.strerror(errno.EFBIG)


# --------------------------------------------------------------------------------------------------------------------
# the sandbox


@pytest.mark.parametrize("script", [*SCRIPTS, "scripted"])
@pytest.mark.parametrize(
    "old, new, message",
    [
        ("platform", "darwin", "the executor needs Linux"),
        ("executable", "/nowhere/python", "cannot run programs: [Errno 2]"),
        (
            "os.setpgid(0, 0)",
            "raise OSError(1, 'refused')",
            "cannot run programs: OSError: the layer process_group does",
        ),
        ("self.kill_children(keep=())", "raise OSError(2, 'no /proc')", "cannot confine programs: [Errno 2]"),
        ("LIBC.syscall, restrict", "LIBC.syscall, 1 << 30", "the layer landlock does not hold: [Errno 38]"),
        ("import site\n", "import nosuch\n", "its fork server died twice"),
        ("zygote, sealed_fd = os.getpid(), os.eventfd(1)", "raise OSError(11, 'none left')", "none left"),
    ],
)
def test_a_machine_without_sandbox_is_told_at_once(old, new, message, script, altered, monkeypatch):
    """Every program would be a sandbox_error, masked out of training: a run that learns nothing about code, for as
    long as it is let to. Nothing may have been computed or moved when that is found."""
    if hasattr(sys, old):
        monkeypatch.setattr(sys, old, new)
    else:
        altered((old, new))
    monkeypatch.setattr(training, "load_bundle", lambda *_: pytest.fail("loaded a model first"))
    monkeypatch.setattr(evaluate, "load_bundle", lambda *_: pytest.fail("loaded a model first"))
    monkeypatch.setattr(scripted, "compose", lambda *_: pytest.fail("began to write"))
    text = line(scripted.main, "--out", "run/t.jsonl") if script == "scripted" else run(script)
    assert message in text and "Traceback" not in text
    assert not Path("run").exists()


def test_data_of_ones_own_needs_no_sandbox(monkeypatch):
    """The warm start on stored trajectories runs no program: it works where none can be run."""
    stored = {"segments": [{"text": "q", "source": "prompt"}, {"text": "<<<1>>>", "source": "model"}]}
    Path("t.jsonl").write_text((json.dumps(stored) + "\n") * 8)
    monkeypatch.setattr(sys, "platform", "darwin")
    run_main(lambda: sft.main(["--model", TINY, "--out", "run", *FLAGS["sft"].split(), "--data", "t.jsonl"]))
    assert Path("run/checkpoint/config.json").exists()


def test_a_machine_that_cannot_confine_programs_says_how_to_go_on(altered, capfd):
    """What the kernel lacks, and what to do, in one line; not the zygote's traceback, twice."""
    altered(("self.kill_children(keep=())", "raise OSError(2, 'no /proc')"))
    with pytest.raises(SandboxError, match=r"no /proc\. Needed: .*--doctor.*--best_effort") as error:
        executor.check_sandbox()
    assert "\n" not in str(error.value) and capfd.readouterr().err == ""


class FailingExecutor:
    """Fails the first `failures` programs and runs the others."""

    def __init__(self, failures: int):
        self.left = failures

    def submit(self, code: str) -> Future:
        self.left -= 1
        future = Future()
        future.set_result(result("sandbox_error" if self.left >= 0 else "ok"))
        return future


def test_a_sandbox_that_fails_on_the_way_ends_the_run():
    """Episodes that it fails are masked out: a machine that runs out of processes in the night would go on to train
    on the few that write no code. A few failures are no reason to stop."""
    scripts = {f"q{i}": list((CODE + "So <<<42>>>").encode()) for i in range(24)}
    with pytest.raises(SandboxError, match="13 of 24 programs could not be run") as error:
        rollout_of(scripts, FailingExecutor(13), deterministic=False, max_reply_tokens=400)
    assert "\n" not in str(error.value)
    for failures, count in ((12, 24), (8, 8)):
        episodes = rollout_of(dict([*scripts.items()][:count]), FailingExecutor(failures), deterministic=False)
        assert sum(e.finish == "sandbox_error" for e in episodes) == failures


def test_the_teacher_names_the_machine_rather_than_its_program():
    """On an overloaded machine a program of the teacher's times out: not a bug of the program, and so no traceback."""
    for status in ("timeout", "sandbox_error"):
        busy = SimpleNamespace(map=lambda codes, status=status: [result(status, "", "a\nb") for _ in codes])
        with pytest.raises(SandboxError, match=f"^gcd [0-9]+, kind ok: program 1 ended as {status}: a b$"):
            scripted.compose(["gcd"], 1, 0, busy, mix={"ok": 1.0})


# --------------------------------------------------------------------------------------------------------------------
# disks


def test_a_full_disk_is_known_before_anything_is_computed():
    """On a full disk one can still make empty files and folders: only bytes tell."""
    with full_disk(1000):
        assert run("sft") == f"--out: nothing can be written to {Path().absolute()}: {TOO_LARGE}"
    assert [*Path().iterdir()] == []


@pytest.mark.parametrize("script", ["sft", "grpo"])
def test_a_disk_too_small_for_the_checkpoint_is_known_before_training(script, monkeypatch):
    """Hours of training, and no room for its result. The older run must still be in its place."""
    Path("run").mkdir()
    Path("run/config.yaml").write_text("steps: 1")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2 * 10**6))
    assert "has 2 MB free, and two checkpoints take 26 MB" in run(script)
    assert [path.name for path in Path().iterdir()] == ["run"] and not Path("run/metrics.jsonl").exists()


def test_a_log_keeps_whole_lines_on_a_full_disk():
    """Half a line at the end makes the whole file unreadable to what reads it line by line."""
    run = Run("run", grpo.GRPOArguments())
    run.append("episodes.jsonl", [{"text": "x" * 1000}])
    whole = Path("run/episodes.jsonl").read_bytes()
    with full_disk(1500), pytest.raises(OSError) as error:
        run.append("episodes.jsonl", [{"text": "y" * 100} for _ in range(20)])
    assert (error.value.errno, error.value.filename) == (errno.EFBIG, "run/episodes.jsonl")
    assert Path("run/episodes.jsonl").read_bytes() == whole
    Path("run/metrics.jsonl").symlink_to("/dev/full")
    assert line(lambda _: run.log(0, {"loss": 1.0})) == (
        "run/metrics.jsonl: No space left on device: free some space, or take another --out"
    )


def test_a_log_keeps_whole_lines_when_it_is_interrupted():
    """Ctrl-C between two records, or in the middle of one."""

    def records():
        yield {"text": "x" * 100_000}
        raise cli.Stopped(signal.SIGINT)

    run = Run("run", grpo.GRPOArguments())
    with pytest.raises(cli.Stopped):
        run.append("episodes.jsonl", records())
    assert not Path("run/episodes.jsonl").exists()


def test_a_disk_that_fills_up_in_training_names_the_file_and_what_is_kept(monkeypatch):
    """An OSError knows neither the file nor the run: "[Errno 28] No space left on device" after hours."""
    measure = grpo.measure
    with contextlib.ExitStack() as limits:

        def fill(episodes):
            limits.enter_context(full_disk(1500))  # a line of metrics fits, the episodes do not
            return measure(episodes)

        monkeypatch.setattr(grpo, "measure", fill)
        text = run("grpo")
    kept = "run keeps config.yaml, episodes.jsonl, metrics.jsonl, revision.txt, but no checkpoint"
    assert text == f"run/episodes.jsonl: {TOO_LARGE}; {kept}"
    assert len(Path("run/metrics.jsonl").read_text().splitlines()) == 1
    assert Path("run/episodes.jsonl").read_text() == ""


def test_a_disk_that_fills_up_while_saving(monkeypatch):
    """The weights are written in Rust, whose errors are of another class and name no file; half a checkpoint under
    its final name would be found only by the next run."""
    write = checkpoint.write_bundle

    def full(*arguments):
        with full_disk(1_000_000):
            write(*arguments)

    monkeypatch.setattr(checkpoint, "write_bundle", full)
    kept = "run keeps checkpoints, config.yaml, metrics.jsonl, revision.txt, trajectories.jsonl, but no checkpoint"
    assert run("sft") == f"run/checkpoints/step-000002: {TOO_LARGE}; {kept}"
    assert [*Path("run/checkpoints").iterdir()] == [] and not Path("run/checkpoint").is_symlink()


@pytest.mark.parametrize("what", ["configuration", "weights", "tokenizer"])
def test_the_older_checkpoint_outlives_a_full_disk(what, folder, monkeypatch):
    """Whatever of the new one is the first that cannot be written; the last two are written in Rust."""
    before = load_file(folder / "model.safetensors")
    if what == "tokenizer":
        monkeypatch.setattr(checkpoint, "write_model", lambda *_: None)
    with full_disk(100 if what == "configuration" else 20_000), pytest.raises(OSError) as error:
        save_bundle(random_bundle(seed=1), folder)
    assert (error.value.errno, error.value.filename) == (errno.EFBIG, str(folder))
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    after = load_file(folder / "model.safetensors")
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)
    load_bundle(str(folder))


def test_what_rust_says_of_the_disk_is_understood():
    """The very texts of safetensors and tokenizers; other errors are not the disk's, and keep their class."""
    for text in ("Error while serializing: I/O error: No space left on device (os error 28)", "x (os error 28)"):
        with pytest.raises(OSError) as error, writing(Path("here")):
            raise Exception(text)
        assert (error.value.errno, error.value.filename) == (errno.ENOSPC, "here")
    with pytest.raises(ValueError, match="a bug"), writing(Path("here")):
        raise ValueError("a bug")


@pytest.mark.parametrize("name", ["evaluation.json", "t.jsonl"])
def test_a_file_is_whole_or_not_there(name, monkeypatch):
    """Half of an evaluation.json or of a data set looks like all of it."""
    path = Path("deep") / name
    write_whole(path, ["old\n"])
    with full_disk(1000), pytest.raises(OSError) as error:
        write_whole(path, ("x" * 600 + "\n" for _ in range(20)))
    assert (error.value.errno, error.value.filename) == (errno.EFBIG, str(path))
    assert path.read_text() == "old\n" and [p.name for p in Path("deep").iterdir()] == [name]


def test_the_teachers_file_on_a_full_disk(monkeypatch):
    """Its name and the reason in one line, and no half of a file."""
    with full_disk(70_000):
        text = line(scripted.main, "--out", "t.jsonl", "--count", "400", "--tasks", "gcd")
    assert text == f"t.jsonl: {TOO_LARGE}" and [*Path().iterdir()] == []


def test_an_evaluation_that_cannot_be_stored_is_shown(monkeypatch, capsys):
    """An hour of sampling is done, and the disk is full: its table must not be lost with the file."""
    monkeypatch.setattr(Run, "append", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full", "run/e.jsonl")))
    assert run("evaluate").startswith("run/e.jsonl: full: free some space")
    out = capsys.readouterr().out
    assert out.count("all tasks") == 1 and "gcd" in out
    assert not Path("run/evaluation.json").exists()


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EIO, errno.EMFILE])
def test_what_the_machine_fails_at_is_one_line(number):
    """A file system that turns read-only, rights, a dying disk, too many open files; but not every OSError: that a
    file of our own is missing is a bug."""

    def main(_):
        raise OSError(number, os.strerror(number), "some/file")

    assert line(main) == f"some/file: {os.strerror(number)}"
    with pytest.raises(FileNotFoundError):
        run_main(lambda: Path("nothing").read_text())


# --------------------------------------------------------------------------------------------------------------------
# signals


def stopped(script: str, capsys, flags: str = "", number: int = signal.SIGINT) -> tuple[str, str]:
    """What an interrupted run says that it keeps, and what stands on stdout."""
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    before = children()
    with pytest.raises(SystemExit) as stop:
        run_main(lambda: SCRIPTS[script](["--model", TINY, "--out", "run", *FLAGS[script].split(), *flags.split()]))
    assert stop.value.code == 128 + number
    assert children() <= before  # no zygote is left behind
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    said = capsys.readouterr()
    last = said.err.splitlines()[-1]
    assert last.startswith(f"{Path(sys.argv[0]).name}: stopped by {signal.Signals(number).name}")
    return last.partition("; ")[2], said.out


def after(function: Callable, number: int, calls: int = 1) -> Callable:
    """The function, which sends this process a signal when it has been called `calls` times."""
    done = 0

    def wrapper(*arguments, **more):
        nonlocal done
        value, done = function(*arguments, **more), done + 1
        if done == calls:
            os.kill(os.getpid(), number)
        return value

    return wrapper


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_says_what_it_keeps(number, monkeypatch, capsys):
    """Ctrl-C used to end in a traceback of the step that happened to run, and SIGTERM in silence."""
    submit = Executor.submit

    def interrupt(executor: Executor, code: str):
        if Path("run/episodes.jsonl").exists():  # in the middle of the second rollout
            os.kill(os.getpid(), number)
        return submit(executor, code)

    monkeypatch.setattr(Executor, "submit", interrupt)
    kept, _ = stopped("grpo", capsys, "--steps 20 --max_reply_tokens 60", number)
    files = "checkpoint, checkpoints, config.yaml, episodes.jsonl, metrics.jsonl, revision.txt"
    assert kept == f"run keeps {files}; --resume goes on from there"
    assert len(Path("run/metrics.jsonl").read_text().splitlines()) == 1
    assert Path("run/checkpoint").resolve().name == "step-000001"


def test_an_interrupted_warm_start_keeps_its_metrics(monkeypatch, capsys):
    """The curve so far, in whole lines, is what tells whether it was worth going on."""
    monkeypatch.setattr(Run, "log", after(Run.log, signal.SIGINT))
    files = "checkpoint, checkpoints, config.yaml, metrics.jsonl, revision.txt, trajectories.jsonl"
    assert stopped("sft", capsys)[0] == f"run keeps {files}; --resume goes on from there"
    assert [json.loads(text)["step"] for text in Path("run/metrics.jsonl").read_text().splitlines()] == [0]
    assert Path("run/checkpoint").resolve().name == "step-000001"


@pytest.mark.parametrize("where", ["config", "weights", "tokenizer"])
def test_a_save_is_not_interrupted(where, monkeypatch):
    """Half a checkpoint under the final name looks like a whole one, and a temporary one is litter."""
    if where == "tokenizer":
        write = checkpoint.PreTrainedTokenizerBase.save_pretrained
        monkeypatch.setattr(checkpoint.PreTrainedTokenizerBase, "save_pretrained", after(write, signal.SIGINT))
    else:
        name = {"config": "hf_state_dict", "weights": "write_model"}[where]
        monkeypatch.setattr(checkpoint, name, after(getattr(checkpoint, name), signal.SIGINT))
    run_main(lambda: sft.main(["--model", TINY, "--out", "run", *FLAGS["sft"].split()]))  # all was done when it came
    load_bundle("run/checkpoint")
    assert [path.name for path in Path("run/checkpoints").iterdir()] == ["step-000002"]


def test_an_interruption_between_two_renames_leaves_the_older_folder(monkeypatch):
    """A folder cannot be replaced in one step: after the first rename, nothing has the name."""
    write_whole(Path("model/weights"), ["old"])
    rename, renamed = Path.rename, []

    def interrupted(path: Path, target: Path) -> None:
        rename(path, target)
        renamed.append(path.name)
        if len(renamed) == 1:
            raise cli.Stopped(signal.SIGINT)

    with pytest.raises(cli.Stopped), atomic_folder(Path("model")) as temporary:
        (temporary / "weights").write_text("new")
        monkeypatch.setattr(Path, "rename", interrupted)
    assert renamed[0] == "model" and Path("model/weights").read_text() == "old" and len(list(Path().iterdir())) == 1


def test_an_interrupted_evaluation_shows_and_keeps_what_it_has(monkeypatch, capsys, folder):
    """One model of two was done when the night was over."""
    asked = evaluate.Evaluation.ask_checkpoint
    monkeypatch.setattr(evaluate.Evaluation, "ask_checkpoint", after(asked, signal.SIGTERM, calls=1))
    kept, out = stopped("evaluate", capsys, f"--model {TINY} model", signal.SIGTERM)
    assert kept == "run keeps config.yaml, episodes.jsonl, models.json, revision.txt, but no evaluation.json"
    models = {json.loads(text)["model"] for text in Path("run/episodes.jsonl").read_text().splitlines()}
    assert models == {TINY}
    assert out.count("all tasks") == 2 and TINY in out  # sampled and greedy


def test_an_interruption_before_the_run_keeps_nothing(monkeypatch, capsys):
    """No run folder yet: nothing to speak of, and none is made."""
    monkeypatch.setattr(sft, "check_sandbox", lambda _: os.kill(os.getpid(), signal.SIGINT))
    assert stopped("sft", capsys)[0] == "" and not Path("run").exists()


def test_a_second_signal_ends_at_once():
    """Where cleaning up hangs, Ctrl-C once more must still end the process."""
    script = (
        "import os, signal, sys, time\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from cli import run_main\n"
        "def main():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    finally:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        time.sleep(60)\n"
        "run_main(main)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGINT


def test_a_background_job_that_ignores_ctrl_c_goes_on_doing_so():
    """`nohup` and `&` in scripts have a process ignore SIGINT: taking the signal back would end it with the shell."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        run_main(lambda: os.kill(os.getpid(), signal.SIGINT))
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_real_process_ends_with_the_signals_code(tmp_path):
    """The same through a real process: a line on stderr, code 143 for the scheduler to see, and no process left."""
    command = [sys.executable, str(ROOT / "grpo.py"), "--model", TINY, "--out", str(tmp_path / "run")]
    flags = "--tasks gcd --steps 1000 --prompts_per_step 2 --group_size 2 --max_reply_tokens 40"
    process = subprocess.Popen(
        [*command, *flags.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"}, cwd=ROOT,
    )  # fmt: skip
    try:
        assert process.stdout.readline().startswith("step ")  # the first one is done
        zygotes = Path(f"/proc/{process.pid}/task/{process.pid}/children").parents[1].glob("*/children")
        zygotes = [pid for path in zygotes for pid in path.read_text().split()]
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 143 and "Traceback" not in err
    assert err.strip().splitlines()[-1].startswith(f"grpo.py: stopped by SIGTERM; {tmp_path}/run keeps checkpoint, ")
    for name in ("metrics.jsonl", "episodes.jsonl"):
        assert all(json.loads(text) for text in (tmp_path / "run" / name).read_text().splitlines())
    assert zygotes and not any(Path(f"/proc/{pid}").exists() for pid in zygotes)


# --------------------------------------------------------------------------------------------------------------------
# memory, and several processes


def out_of_memory(*_, **__):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.\nGPU 0 has a total capacity of")


@pytest.mark.parametrize(
    "script, module, name, message",
    [
        ("grpo", slots, "SlotAttention", "while sampling: lower --slots, --max_reply_tokens or --cache_gib"),
        ("evaluate", slots, "SlotAttention", "while sampling: lower --slots, --max_reply_tokens or --cache_gib"),
        ("sft", training, "score_packed", "while training: lower --micro_batch_tokens"),
        ("sft", torch.optim.AdamW, "step", "the model and its optimizer need a larger machine, or more GPUs"),
    ],
)
def test_out_of_memory_names_what_to_lower(script, module, name, message, monkeypatch):
    """The allocator's own text fills a screen and names none of our flags."""
    monkeypatch.setattr(module, name, out_of_memory)
    assert run(script).startswith(f"out of memory{': ' if 'larger' in message else ' '}{message}; run keeps ")


def test_no_memory_for_a_single_sequence():
    """A division by its size would give no slots, and a generator without slots waits for ever."""
    line = run("evaluate", "--cache_gib 1e-5")
    assert line.startswith("the keys and values of one sequence take 0.00") and "raise --cache_gib; run keeps" in line


@pytest.mark.parametrize("kind", [ValueError, RuntimeError, KeyError, ZeroDivisionError])
def test_a_bug_in_the_middle_of_a_run_keeps_its_traceback(kind, monkeypatch):
    """Turned into a line, it could not be found."""

    def bug(*_):
        raise kind("a bug")

    monkeypatch.setattr(grpo, "measure", bug)
    flags = ["--model", TINY, "--out", "run", *FLAGS["grpo"].split()]
    with pytest.raises(kind, match="a bug"):
        run_main(lambda: grpo.main(flags))


def test_one_rank_alone_fails(tmp_path):
    """The others wait for it in a collective call: they must end too, and its message must be legible among theirs,
    with no traceback of ours."""
    script = tmp_path / "train.py"
    script.write_text(
        f"import os, sys\nsys.path.insert(0, {str(ROOT)!r})\nimport cli, grpo\n"
        "def update(*arguments):\n"
        "    if os.environ['RANK'] == '1':\n"
        "        raise cli.UserError('rank 1 is not well')\n"
        "    return real(*arguments)\n"
        "grpo.update, real = update, grpo.update\n"
        "cli.run_main(grpo.main)\n"
    )
    flags = [str(script), "--model", TINY, "--out", str(tmp_path / "run"), *FLAGS["grpo"].split()]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *flags]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=200, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 1
    assert "train.py, rank 1: rank 1 is not well" in done.stderr.splitlines()
    ours = [text for text in done.stderr.splitlines() if str(ROOT / "grpo.py") in text or "cli.py" in text]
    assert ours == []
