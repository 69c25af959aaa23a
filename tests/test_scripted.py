"""The scripted teacher: its programs do what their kind says, and its files are what the trainer expects."""

import json
from collections import Counter

import datasets
import pytest

import scripted
from cli import UserError
from executor import Executor, Result
from rollout import observation
from scripted import MIX, PROGRAMS, compose, summary
from tasks import EMBEDDED, INDEX_RANGES, PYTHON_FENCES, extract_answer, get_task, problems, spans
from trajectories import write_trajectories


@pytest.fixture(scope="module")
def executor():
    with Executor(timeout=30.0) as running:
        yield running


@pytest.fixture(scope="module")
def trajectories(executor):
    return compose(list(EMBEDDED), 880, 7, executor)


class ScriptedExecutor:
    """Returns the same result for every program."""

    def __init__(self, result: Result):
        self.result = result

    def map(self, codes: list[str]) -> list[Result]:
        return [self.result for _ in codes]


def test_every_embedded_task_has_programs():
    """A task added to the default without a program fails in the middle of a newcomer's first run."""
    assert set(PROGRAMS) == set(EMBEDDED)


@pytest.mark.parametrize("name", EMBEDDED)
def test_programs_do_what_their_kind_says(name, executor):
    """A right program that fails, a buggy one that runs, a wrong one that is often right: each spoils the mixture."""
    pool = problems(name, "sft", 50)
    programs = [PROGRAMS[name](problem.question) for problem in pool]
    for problem, result in zip(pool, executor.map(p.right for p in programs), strict=True):
        assert result.status == "ok" and get_task(name).score(problem, result.stdout) == 1, (problem, result)
    for result in executor.map(code for p in programs for code in p.buggy):
        assert result.status == "error" and "Error" in result.stderr, result
    owners = [problem for problem, p in zip(pool, programs, strict=True) for _ in p.wrong]
    results = executor.map(code for p in programs for code in p.wrong)
    assert all(result.status == "ok" and result.stdout.strip() for result in results)
    verdicts = [get_task(name).score(o, r.stdout.strip()) for o, r in zip(owners, results, strict=True)]
    assert sum(verdicts) <= 0.1 * len(verdicts)


@pytest.mark.parametrize("name", EMBEDDED)
def test_programs_quote_the_question(name):
    """A number that is not in the question as it stands in the program cannot be copied, only made up."""
    for problem in problems(name, "sft", 20):
        programs = PROGRAMS[name](problem.question)
        for code in (programs.right, *programs.wrong[:1], *programs.buggy):
            bound = [line.partition("= ")[2].strip(' "') for line in code.splitlines() if line[1:4] == " = "]
            assert bound[0] in problem.question and len(bound[0]) > 0


def test_mixture_is_as_documented(trajectories):
    """Four standard errors around the documented shares, and wrong answers only where they are meant."""
    kinds = Counter(trajectory["kind"] for trajectory in trajectories)
    assert sum(MIX.values()) == pytest.approx(1)
    for kind, share in MIX.items():
        error = (share * (1 - share) / len(trajectories)) ** 0.5
        assert abs(kinds[kind] / len(trajectories) - share) < 4 * error, kinds
    assert all(trajectory["correct"] for trajectory in trajectories if trajectory["kind"] != "bad")
    wrong = [not trajectory["correct"] for trajectory in trajectories if trajectory["kind"] == "bad"]
    assert sum(wrong) > 0.9 * len(wrong)


def test_segments(trajectories):
    """Text filed under the wrong source is trained on, or masked, by mistake; joined, the reply reads as intended."""
    for trajectory in trajectories:
        problem = get_task(trajectory["task"]).problem(trajectory["index"])
        texts = [segment["text"] for segment in trajectory["segments"]]
        sources = [segment["source"] for segment in trajectory["segments"]]
        runs = {"ok": 1, "text": 0, "bad": 1, "bug": 2}[trajectory["kind"]]
        assert sources == ["prompt", *["model", "observation"] * runs, "model"]
        assert texts[0] == problem.question and trajectory["index"] in INDEX_RANGES["sft"]
        answer = extract_answer("".join(texts[1:]), last=True)
        assert answer is not None and texts[-1].endswith(f"<<<{answer}>>>")
        assert get_task(trajectory["task"]).score(problem, answer) == trajectory["correct"]
        for text, source in zip(texts[1:-1], sources[1:-1], strict=True):
            if source == "model":
                (fence,) = [span for span in spans(text) if span.kind == "fence"]
                assert fence.language in PYTHON_FENCES and fence.closed and fence.end == len(text)
            else:
                assert text.startswith("\n") and "Code Execution Results:" in text
        last = texts[-2] if runs else answer
        assert answer in last, "the reported answer is what the program printed"


def test_observations_are_real(executor, trajectories):
    """Programs ran without the newline that ends a fence's content: their tracebacks were not those of a rollout."""
    for name in EMBEDDED:
        chosen = next(t for t in trajectories if t["kind"] == "bug" and t["task"] == name)
        for said, seen in zip(chosen["segments"][1:-1:2], chosen["segments"][2::2], strict=True):
            (fence,) = [span for span in spans(said["text"]) if span.kind == "fence"]
            assert seen["text"] == observation(executor.run(fence.code(said["text"])))


def test_problems_differ(executor):
    """Distinct problems as long as there are any; then they come again with other kinds."""
    many = compose(["prime_factorization"], 700, 0, executor, mix={"text": 1.0})
    indices = [trajectory["index"] for trajectory in many]
    pool = len(problems("prime_factorization", "sft", 700))
    assert pool < 500 and len(set(indices)) == len(set(indices[:pool])) == pool and indices[pool] == indices[0]


def test_one_seed_gives_one_file(executor, trajectories, tmp_path):
    """A warm start that cannot be repeated makes every later figure a matter of luck."""
    files = [tmp_path / "deep" / "a.jsonl", tmp_path / "b.jsonl"]
    write_trajectories(trajectories[:220], files[0])
    write_trajectories(compose(list(EMBEDDED), 220, 7, executor), files[1])
    assert files[0].read_bytes() == files[1].read_bytes()
    assert compose(list(EMBEDDED), 55, 8, executor) != trajectories[:55]
    # A task's trajectories do not depend on the tasks beside it.
    assert compose(["lcm"], 9, 7, executor) == [t for t in trajectories if t["task"] == "lcm"][:9]


def test_file_is_read_by_datasets(trajectories, tmp_path):
    """Mixed types in a column make the loader fail only at the row where they change."""
    path = tmp_path / "trajectories.jsonl"
    write_trajectories(trajectories, path)
    loaded = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.to_list() == trajectories
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["trajectories.jsonl"]


def test_failed_write_leaves_the_old_file(tmp_path):
    """A half-written file under the final name is read as a short data set."""
    path = tmp_path / "trajectories.jsonl"
    write_trajectories([{"a": 1}], path)
    with pytest.raises(TypeError):
        write_trajectories([{"a": 2}, {"a": object()}], path)
    assert json.loads(path.read_text()) == {"a": 1}


@pytest.mark.parametrize(
    "kind, result",
    [
        ("ok", Result("error", "", "NameError")),
        ("ok", Result("timeout", "", "")),
        ("ok", Result("ok", "not the answer\n", "")),
        ("bad", Result("sandbox_error", "", "")),
        ("bad", Result("error", "", "NameError")),
        ("bug", Result("ok", "4\n", "")),
        ("bug", Result("sandbox_error", "", "")),
    ],
)
def test_unexpected_ends_are_errors(kind, result):
    """A sandbox that fails in silence would fill the warm start with programs that look wrong."""
    with pytest.raises(RuntimeError, match=f"^gcd [0-9]+, kind {kind}: "):
        compose(["gcd"], 3, 0, ScriptedExecutor(result), mix={kind: 1.0})


def test_programs_that_may_guess_wrongly():
    """One wrong guess in a hundred ended an hour's work; taken for right, it would teach the wrong answer as right."""
    wrong = ScriptedExecutor(Result("ok", "not the answer\n", ""))
    assert compose(["gcd"], 3, 0, wrong, mix={"ok": 1.0}, fallible={"gcd"}) == []
    assert len(compose(["gcd"], 3, 0, wrong, mix={"bad": 1.0}, fallible={"gcd"})) == 3


def test_bad_requests():
    """Wrong names are refused before any program runs."""
    with pytest.raises(ValueError, match="no scripted programs for calendar_arithmetic"):
        compose(["gcd", "calendar_arithmetic"], 3, 0, None)
    with pytest.raises(ValueError, match="unknown kind good"):
        compose(["gcd"], 3, 0, None, mix={"good": 1.0})


def test_command_line(tmp_path, capsys):
    """The command in the docstring writes the file and tells what is in it."""
    path = tmp_path / "out.jsonl"
    scripted.main(["--out", str(path), "--count", "40", "--seed", "3", "--tasks", "gcd,lcm"])
    written = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(written) == 40 and capsys.readouterr().out.strip() == summary(written)
    with pytest.raises(UserError, match="unknown task 'gdc'"):
        scripted.main(["--out", str(path), "--tasks", "gdc"])
