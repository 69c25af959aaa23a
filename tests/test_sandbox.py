"""The sandbox against the programs of hostile.py, as root and as an ordinary user; and machines that lack a layer.

Where a layer is taken away, only harmless programs run: among the hostile ones, some do real harm then.
"""

import contextlib
import logging
import os
import platform
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("the executor needs Linux", allow_module_level=True)

from hostile import CASES, examine, sleeping_programs, state, wait_until, zygotes

from cli import ROOT
from executor import Executor, SandboxError
from sandbox import CHILD_LAYERS, LAYERS, OPTIONAL, ZYGOTE_LAYERS

NOBODY = 65534
NEEDED = [name for name in LAYERS if name not in OPTIONAL]


# The programs, as the user who runs the tests


@pytest.fixture(scope="module")
def examined() -> tuple[dict[str, list[str]], list[str]]:
    """All cases, run side by side: the complaints of each, and the damage."""
    return examine()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_program(examined, case):
    """One program of hostile.py: it must end as its table says, and must neither read nor harm what is around it."""
    if case.missing:
        pytest.skip(f"{case.needs} is not installed")
    assert not examined[0][case.id]


def test_nothing_is_left_behind(examined):
    """A program that was told `refused`, and came through all the same: a file, a process, a datagram, a dead victim, a
    dead zygote, a lost descriptor."""
    assert not examined[1]


def test_every_case_has_a_name_of_its_own():
    """Of two cases with one id, only the second would be looked at."""
    assert len({case.id for case in CASES}) == len(CASES) > 250


# The programs, as somebody else


def link_or_copy(source: str, target: str) -> None:
    """A hard link costs nothing, but needs the same file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def copy_tree(source: Path, target: Path, *leave_out: str) -> None:
    """Copies a folder, times included: compiled modules stay valid by them."""
    ignore = shutil.ignore_patterns(*leave_out)
    shutil.copytree(source, target, ignore=ignore, copy_function=link_or_copy, dirs_exist_ok=True)


@pytest.fixture
def copied() -> Iterator[Path]:
    """An interpreter, its packages and our files in a folder that everybody may read: those in use may lie in root's
    home. Unlike in a virtual environment, packages lie within the standard library here: one of them holds answers."""
    with tempfile.TemporaryDirectory(prefix="sandbox-") as name:
        top = Path(name)
        top.chmod(0o755)
        python = f"python{sys.version_info.major}.{sys.version_info.minor}"
        base, library = top / "base", top / "base/lib" / python
        (base / "bin").mkdir(parents=True)
        shutil.copy2(Path(sys.executable).resolve(), base / "bin" / python)
        ours = (
            "test",
            "tests",
            "idlelib",
            "lib2to3",
            "site-packages",
            "dist-packages",
            "ensurepip",
            "config-*",
            "tkinter",
        )
        copy_tree(Path(sysconfig.get_path("stdlib")), library, *ours)
        for shared in Path(sys.base_prefix, "lib").glob("libpython*.so*"):
            link_or_copy(str(shared.resolve()), str(base / "lib" / shared.name))
        for package in ("numpy", "numpy.libs", "sympy", "mpmath"):
            if (origin := Path(sysconfig.get_path("platlib"), package)).is_dir():
                copy_tree(origin, library / "site-packages" / package, "tests")
        answers = library / "site-packages/reasoning_gym/__init__.py"
        answers.parent.mkdir(parents=True)
        answers.write_text("print('the answers')\n")
        (top / "code/tests").mkdir(parents=True)
        for source in [*ROOT.glob("*.py"), ROOT / "tests/hostile.py"]:
            shutil.copy(source, top / "code" / source.relative_to(ROOT))
        (top / "tmp").mkdir()
        os.chown(top / "tmp", NOBODY, NOBODY)
        (top / "tmp").chmod(0o755)
        yield top


@pytest.mark.skipif(os.getuid() != 0, reason="an ordinary user runs these tests, and so test_program is about one")
def test_programs_of_an_ordinary_user(copied):
    """Most layers have another effect on root: what stops a program then may be missing for all others."""
    (python,) = (copied / "base/bin").iterdir()
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(copied / "tmp"), "TMPDIR": str(copied / "tmp")}
    # A shared libpython is found by a path in the interpreter, which leads back to where it was copied from; and the
    # system's own Python may have one of the same name.
    environment["LD_LIBRARY_PATH"] = str(copied / "base/lib")
    done = subprocess.run(
        [python, "-B", copied / "code/tests/hostile.py"],
        user=NOBODY, group=NOBODY, extra_groups=[], env=environment, cwd="/", stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"uid {NOBODY}: " in done.stdout and " 0 failed, 0 damages" in done.stdout and done.stderr == ""


# The layers, seen from outside


@pytest.fixture
def running() -> Iterator[int]:
    """A program that runs, and sleeps."""
    with Executor(workers=1, timeout=60.0) as executor:
        future = executor.submit("import time\ntime.sleep(600)")
        (pid,) = wait_until(sleeping_programs)
        yield pid
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        assert set(NEEDED) <= set(future.result().layers)


def test_what_the_kernel_says_of_a_program(running):
    """A layer that was put up without an error and does not hold: the kernel knows better than a Result."""
    inside, outside = state(running), state(os.getpid())
    assert inside["Seccomp"] == "2" and int(inside["Seccomp_filters"]) == int(outside["Seccomp_filters"]) + 1
    assert inside["NoNewPrivs"] == "1"
    assert {int(inside[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {0}
    assert inside["Uid"] == outside["Uid"] and inside["Threads"] == "1"
    group = Path(f"/proc/{running}/stat").read_text().rpartition(")")[2].split()[2]
    assert int(group) == running


def test_what_the_kernel_says_of_its_limits(running):
    """Soft and hard, as the kernel has them and not as the program is told."""
    lines = Path(f"/proc/{running}/limits").read_text().splitlines()[1:]
    limits = {line[:26].strip(): line[26:].split()[:2] for line in lines}
    assert limits["Max cpu time"] == ["61", "62"] and limits["Max core file size"] == ["0", "0"]
    assert limits["Max file size"] == ["65537", "65537"] and limits["Max open files"] == ["64", "64"]
    soft, hard = map(int, limits["Max address space"])
    assert 512 << 20 < soft < hard < 1 << 30


def test_zygotes_are_confined_too(running):
    """Their memory is what programs are copies of; a program that took one over would have no filter."""
    (zygote,) = zygotes()
    about = state(zygote)
    assert about["NoNewPrivs"] == "1" and int(about["CapEff"], 16) == int(about["CapPrm"], 16) == 0


@pytest.mark.skipif(os.getuid() != 0, reason="a program is not dumpable: only root can look into it")
def test_what_root_sees_of_a_program(running):
    """What is left open, and namespaces: a Result must not claim them where a program shares the trainer's network."""
    assert sorted(os.listdir(f"/proc/{running}/fd")) == ["0", "1", "2"]
    assert os.readlink(f"/proc/{running}/fd/0") == "/dev/null" and os.readlink(f"/proc/{running}/cwd") == "/"
    (zygote,) = zygotes()
    own = {kind for kind in ("user", "net", "ipc", "uts", "mnt") if namespace(running, kind) != namespace("self", kind)}
    assert all(namespace(running, kind) == namespace(zygote, kind) for kind in own)
    with Executor(workers=1, timeout=60.0) as executor:
        held = "namespaces" in executor.run("").layers
    assert own == ({"user", "net", "ipc", "uts", "mnt"} if held else set())


def namespace(pid: int | str, kind: str) -> str:
    return os.readlink(f"/proc/{pid}/ns/{kind}")


@pytest.mark.skipif(os.getuid() == 0, reason="root may look into every process; hostile.py asks as an ordinary user")
def test_other_processes_of_the_user_cannot_look_in(running):
    """Whoever else runs as this user could read what programs print, and their memory."""
    for name in ("mem", "fd/1", "environ"):
        with pytest.raises(PermissionError):
            os.open(f"/proc/{running}/{name}", os.O_RDONLY)


def test_programs_die_with_their_zygote(running):
    """The out-of-memory killer may take the zygote: its programs, which nobody then knows of, would run on."""
    (zygote,) = zygotes()
    os.kill(zygote, signal.SIGKILL)
    assert wait_until(lambda: not state(running))
    assert wait_until(sleeping_programs)  # again, in the next zygote
    for pid in sleeping_programs():
        os.kill(pid, signal.SIGKILL)


# Machines that lack something


@pytest.fixture
def without(altered):
    """without(layer, ...): these cannot be put up from now on, as on a machine that does not have them."""

    def take_away(*layers: str) -> None:
        altered(
            *(
                (
                    f"def {name}(",
                    f"def {name}(*_):\n    raise OSError(38, 'not on this machine')\n\n\ndef {name}_as_it_was(",
                )
                for name in layers
            )
        )

    return take_away


@pytest.mark.parametrize("layer", [name for name in ZYGOTE_LAYERS if name not in OPTIONAL])
def test_a_machine_without_a_layer_of_the_zygote_is_refused(without, layer):
    """The default must not be less safe on a lesser machine. Every Result says what is missing and how to go on, and no
    program has run, neither the first nor those after it."""
    without(layer)
    with Executor(workers=2, timeout=30.0) as executor:
        results = [*executor.map(["print('ran')"] * 4), executor.run("import numpy\nprint('ran')")]
    for result in results:
        assert (result.status, result.stdout, result.exit_code, result.layers) == ("sandbox_error", "", None, ())
        assert f"the layer {layer} does not hold" in result.stderr and "not on this machine" in result.stderr
        assert "--doctor" in result.stderr and "--best_effort" in result.stderr
        assert result.stderr.count("\n") == 1  # a line, and no traceback


@pytest.mark.parametrize("layer", CHILD_LAYERS)
def test_a_layer_of_the_child_that_fails_is_no_fault_of_the_program(without, layer):
    """Each child puts up layers of its own: one that fails must stop the program, and must not be blamed on it."""
    without(layer)
    with Executor(workers=1, timeout=30.0) as executor:
        for result in executor.map(["print('ran')", "print('ran')"]):
            assert (result.status, result.stdout, result.layers) == ("sandbox_error", "", ())
            assert f"the layer {layer} does not hold" in result.stderr


@pytest.mark.parametrize("layer", OPTIONAL)
def test_a_machine_without_an_optional_layer_serves(without, layer, caplog):
    """Docker's default profile forbids namespaces. The other layers must do, and the Result must not claim this one."""
    without(layer)
    with Executor(workers=1, timeout=30.0) as executor, caplog.at_level(logging.WARNING):
        result = executor.run("print('ran')")
    assert (result.status, result.stdout) == ("ok", "ran\n")
    assert set(result.layers) == set(LAYERS) - {layer} and not caplog.records


@pytest.mark.parametrize("layer", NEEDED)
def test_best_effort_runs_and_warns_once(without, layer, caplog):
    """Chosen, logged once and not per program, and shown in every Result: nobody runs unconfined without knowing."""
    without(layer)
    with Executor(workers=2, timeout=30.0, best_effort=True) as executor, caplog.at_level(logging.WARNING):
        results = executor.map(["print('ran')"] * 4)
    for result in results:
        assert (result.status, result.stdout) == ("ok", "ran\n")
        # Without that promise, the kernel takes neither of the two from a process that has no rights.
        lost = {layer, "landlock", "seccomp"} if layer == "no_new_privs" else {layer}
        assert set(LAYERS) - set(result.layers) - set(OPTIONAL) == lost
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and "NOT SANDBOXED" in record.message and layer in record.message


def test_best_effort_without_anything(without, caplog):
    """Where not one layer holds, programs still run, and their failures are still told from ours."""
    without(*LAYERS)
    with Executor(workers=1, timeout=30.0, best_effort=True) as executor, caplog.at_level(logging.WARNING):
        good, bad = executor.map(["print('ran')", "1 / 0"])
    assert (good.status, good.stdout, good.layers) == ("ok", "ran\n", ()) and bad.status == "error"
    assert len(caplog.records) == 1


def test_best_effort_on_a_whole_machine_is_the_same(caplog):
    """A flag left in a script must not take layers away, nor cry wolf."""
    with Executor(workers=1, timeout=30.0, best_effort=True) as executor, caplog.at_level(logging.WARNING):
        result = executor.run("import os\nos.fork()")
    assert result.status == "error" and result.stderr.endswith("PermissionError: [Errno 1] Operation not permitted\n")
    assert set(LAYERS) - set(result.layers) <= set(OPTIONAL) and not caplog.records


def test_another_processor_is_refused(monkeypatch):
    """System calls have other numbers there: the filter would allow the wrong ones."""
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(SandboxError, match=r"aarch64.*--doctor.*--best_effort"):
        Executor()


def test_another_processor_at_best_effort(monkeypatch, altered, caplog):
    """The same check once more, where the filter is made; all other layers hold there."""
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    altered(("os.uname().machine", "'aarch64'"))
    with Executor(workers=1, timeout=30.0, best_effort=True) as executor, caplog.at_level(logging.WARNING):
        result = executor.run("print('ran')")
    assert (result.status, result.stdout) == ("ok", "ran\n")
    assert set(LAYERS) - set(result.layers) - set(OPTIONAL) == {"seccomp"} and len(caplog.records) == 1


def test_a_zygote_that_cannot_start_is_an_infrastructure_failure(altered):
    """A broken interpreter or a missing file on a node: programs fail soon, and by no fault of theirs."""
    altered(("def main() -> None:", "def main() -> None:\n    raise RuntimeError('broken')\n\n\ndef unused() -> None:"))
    with Executor(workers=1, timeout=30.0) as executor:
        result = executor.run("print('ran')")
    assert (result.status, result.stdout) == ("sandbox_error", "") and "died twice" in result.stderr
