"""The doctor must notice walls that are not there: one that finds every machine sound finds nothing."""

import os
import subprocess
import sys

import pytest

from cli import ROOT
from doctor import examine

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the executor needs Linux")


def wrong(table: str) -> list[str]:
    """What the programs that came through were about."""
    return [line[31:71].strip() for line in table.splitlines() if line[72:].startswith("WRONG")]


def test_the_sandbox_holds_on_this_machine():
    """What `python executor.py --doctor` tells a user, and its exit code a script."""
    done = subprocess.run([sys.executable, str(ROOT / "executor.py"), "--doctor"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert wrong(done.stdout) == [] and "programs are confined" in done.stdout and done.stderr == ""


LANDLOCK = ("call(LIBC.syscall, restrict, ruleset, 0)", "pass")
SECCOMP = ("PR_SET_SECCOMP, 2, struct", "PR_SET_DUMPABLE, 0, struct")


@pytest.mark.parametrize(
    "lines, aims",
    [
        ([LANDLOCK], ["read a file of yours", "list a folder of yours"]),
        ([SECCOMP], ["fork"]),
        ([LANDLOCK, SECCOMP], ["start another program", "kill a process of yours", "write a file"]),
        ([("resource.setrlimit(resource.RLIMIT_AS, (limits", "''.format(0, (limits")], ["take 4 GB of memory"]),
        # Of the zygote too, from which its forks inherit it; that line first, since it contains the other one.
        (
            [("sandbox.prctl(sandbox.PR_SET_DUMPABLE, 0)", "pass"), ("prctl(PR_SET_DUMPABLE, 0)", "pass")],
            ["read what other programs print"],
        ),
    ],
)
def test_a_layer_that_does_nothing_is_noticed(lines, aims, altered, capsys):
    """Calls that return 0 and do nothing: layers that are reported as holding, and do not. The doctor's programs do no
    harm where nothing stops them, so that these walls can be taken down here."""
    altered(*lines)
    assert not examine(timeout=3.0)
    table = capsys.readouterr().out
    assert (
        {*aims} <= {*wrong(table)} and "compute something" not in wrong(table) and "programs are NOT confined" in table
    )
    assert ("harm done: the victim was killed" in table) == ("kill a process of yours" in aims)


@pytest.mark.skipif(os.getuid() != 0, reason="an ordinary user has no capabilities to lose")
def test_capabilities_that_stay_are_noticed(altered, capsys):
    """Root keeps root's rights where a container gives them and namespaces do not take them."""
    altered(
        ("call(LIBC.capset, header, none)", "pass"),
        ("uid, gid = os.getuid(), os.getgid()", "raise OSError(1, 'forbidden')"),
    )
    assert not examine(timeout=3.0)
    table = capsys.readouterr().out
    assert wrong(table) == ["read what other programs print"] and "missing: namespaces (optional" in table


def test_no_table_where_programs_cannot_run_at_all():
    """On another system: one line, and not a table of failures."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.platform = 'darwin'; import executor; sys.argv[1:] = ['--doctor']; "
         "executor.main()"],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("executor.py: ") and "needs Linux" in done.stderr
