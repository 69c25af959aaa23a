"""Tasks of the user's own, from a file and as a class; which tasks a run gets, and how a program judges."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import tasks
from executor import Executor
from suites import mathematics
from suites.base import Problem, Task
from suites.custom import FileTask
from tasks import draw_problems, get_task, is_right, part_of, problems, read_split, register, resolve

ROWS = [
    {"question": "six times seven?", "answer": "42", "check": "number"},
    {"question": "primes below ten?", "answer": "2, 3, 5, 7", "check": "set", "split": "test"},
    {"question": "the capital of France?", "answer": "Paris", "split": "test"},
    {
        "question": "any even number?",
        "answer": "2",
        "check": "python",
        "split": "rl",
        "program": "assert question and reference == '2'\nprint('looking')\nprint(answer in ('2', '4', '128'))",
    },
]


@pytest.fixture
def mine(tmp_path, monkeypatch) -> str:
    """A file of tasks, known to nobody before and after."""
    monkeypatch.setattr(tasks, "TASKS", dict(tasks.TASKS))
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in [*ROWS, ROWS[0]]) + "\n\n", encoding="utf-8")
    return str(path)


def test_a_file_is_a_task(mine):
    """Its name, its questions, each once, its splits; by flag alone, without writing a class."""
    assert resolve(f"{mine}, gcd") == ["mine", "gcd"]
    task = get_task("mine")
    assert task.size == 4 and [task.problem(i).question for i in range(4)] == [row["question"] for row in ROWS]
    assert {problem.question for problem in problems("mine", "test", 10)} >= {ROWS[1]["question"], ROWS[2]["question"]}
    parts = [part_of(task.problem(i)) for i in range(4)]
    assert parts[1:] == ["test", "test", "rl"]
    for split in ("sft", "rl", "dev", "test"):
        if split in parts:
            assert len(problems("mine", split, 10)) == parts.count(split)
    assert resolve(mine) == ["mine"]  # once more, as a second script does


def test_checks(mine):
    """Each check, in other layouts and with near misses."""
    resolve(mine)
    number, items, exact, _ = (get_task("mine").problem(i) for i in range(4))
    for problem, right, wrong in (
        (number, ["42", "42.0", " `42` ", "+42."], ["43", "42 or 43", "forty-two", "", "(" * 100_000]),
        (
            items,
            ["2, 3, 5, 7", "{7, 5, 3, 2}", "[2,3,5,7]"],
            ["2, 3, 5", "2, 3, 5, 7, 7", "2 3 5 7", "", "," * 100_000],
        ),
        (exact, ["Paris", " Paris. ", '"Paris"'], ["paris", "Paris, France", "", "x" * 100_000]),
    ):
        assert all(get_task("mine").score(problem, text) == 1 for text in right)
        assert not any(get_task("mine").score(problem, text) for text in wrong)


def test_a_program_judges(mine):
    """In the executor: with what an answer can hold, and whatever the program does. Only True as its last line is
    right; and an answer is data there, not code."""
    resolve(mine)
    problem = get_task("mine").problem(3)

    def other(program: str) -> Problem:
        return Problem("mine", 3, problem.question, problem.answer, {"check": "python", "program": program})

    with Executor(timeout=1.0) as executor:
        assert is_right(problem, "128", executor) is True
        for wrong in ("7", "", "two", "2'\nprint(True)\n'", "'''", "\0", "2\\", "x" * 100_000):
            assert is_right(problem, wrong, executor) is False
        for program in (
            "print(True); print(False)",
            "print(1)",
            "",
            "raise ValueError",
            "print(True); 1 / 0",
            "(",
            "while 1: 0",
        ):
            assert is_right(other(program), "2", executor) is False
        assert is_right(other("print(True)"), "anything", executor) is True
        assert is_right(get_task("gcd").problem(5), get_task("gcd").problem(5).answer, executor) is True

    class Broken:
        def submit(self, code):
            class Done:
                def result(self):
                    return type("Result", (), {"status": "sandbox_error", "stdout": ""})

            return Done()

    assert is_right(problem, "2", Broken()) is None  # neither right nor wrong: the episode leaves the update


@pytest.mark.parametrize(
    "line, message",
    [
        ("{", "line 1: not JSON"),
        ("[1]", "line 1: must be an object of texts"),
        ('{"question": "a", "answer": 4}', 'must be an object of texts (a number is a text too: "42")'),
        ('{"question": "a"}', "line 1: lacks answer"),
        ('{"question": "a", "answer": "b", "check": "python"}', "line 1: lacks program"),
        (
            '{"question": "a", "answer": "b", "check": "fuzzy"}',
            "unknown check 'fuzzy': one of exact, number, set, python",
        ),
        ('{"question": "a", "answer": "b", "split": "train"}', "unknown split 'train': one of sft, rl, dev, test"),
        ('{"question": "a", "answer": "b", "chek": "set"}', "chek is not known here"),
        ('{"question": "a", "answer": "b", "check": "number"}', "check is number, but the answer 'b' is none"),
        ("", "has no questions"),
    ],
)
def test_broken_files_are_refused_in_one_line(line, message, tmp_path):
    """A KeyError after an hour of training, or a question that nobody can answer."""
    path = tmp_path / "mine.jsonl"
    path.write_text(line + "\n", encoding="utf-8")
    with pytest.raises(ValueError) as error:
        FileTask(str(path))
    assert message in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(ValueError, match="cannot be read"):
        FileTask(str(tmp_path / "none.jsonl"))


def test_a_name_is_taken_once(mine, tmp_path):
    """A file called gcd.jsonl would replace the task gcd, in every figure."""
    (tmp_path / "gcd.jsonl").write_text(Path(mine).read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(ValueError, match="there is a task gcd already"):
        resolve(str(tmp_path / "gcd.jsonl"))

    class Echo(Task):
        """The example of docs/how-to-add-a-task.md."""

        name, suite = "echo", "custom"

        def problem(self, index: int) -> Problem:
            return Problem(self.name, index, f"Say {index}.", str(index))

        def score(self, problem: Problem, answer: str) -> int:
            return int(answer.strip() == problem.answer)

    register(Echo())
    assert [problem.task for problem in draw_problems("echo", "dev", 2)] == ["echo", "echo"]
    with pytest.raises(ValueError, match="there is a task echo already"):
        register(Echo())


def test_the_split_of_tasks(tmp_path, monkeypatch):
    """107 to train on, 37 held out, none in both; another file can say otherwise."""
    split = read_split(tasks.SPLIT_FILE)
    train, test = (set(resolve(part)) for part in ("train", "test"))
    assert train | test == set(tasks.TASKS) and not train & test
    assert (len(set(split["train"])), len(set(split["test"]))) == (107, 37)
    assert not set(split["train"]) & set(split["test"])
    (tmp_path / "other.json").write_text('{"easy": ["gcd", "lcm"], "hard": ["a task of tomorrow"]}', encoding="utf-8")
    assert resolve(f"{tmp_path}/other.json:easy") == ["gcd", "lcm"]
    monkeypatch.setattr(tasks, "TASKS", dict(tasks.TASKS))
    (tmp_path / "nested.json").write_text('{"easy": [["gcd"]]}', encoding="utf-8")
    (tmp_path / "mine.jsonl").write_text('{"question": "2 + 2?", "answer": "4"}\n')
    names = ["gcd", "reversi@0", f"{tmp_path}/mine.jsonl"]
    (tmp_path / "more.json").write_text(json.dumps({"easy": names}), encoding="utf-8")
    assert resolve(f"{tmp_path}/more.json:easy") == ["gcd", "reversi@0", "mine"]
    for spec, message in (
        (f"{tmp_path}/other.json:medium", "has no 'medium': easy, hard"),
        (f"{tmp_path}/none.json:easy", "cannot be read"),
        (f"{tmp_path}/other.json:hard", "unknown task 'a task of tomorrow'"),
        (f"{tmp_path}/nested.json:easy", "must be an object of lists of task names"),
    ):
        with pytest.raises(ValueError, match=message):
            resolve(spec)


def test_two_files_of_one_name(tmp_path, monkeypatch):
    """The questions of the first one vanished, for its tasks go by the file's name."""
    monkeypatch.setattr(tasks, "TASKS", dict(tasks.TASKS))
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "twice.jsonl").write_text('{"question": "2 + 2?", "answer": "4"}\n')
    with pytest.raises(ValueError, match=r"a/twice\.jsonl and .*b/twice\.jsonl have the same name"):
        resolve(f"{tmp_path}/a/twice.jsonl,{tmp_path}/b/twice.jsonl")


@pytest.mark.parametrize(
    "answer, reference, right",
    [
        ("cos(x), sin(x)", "sin(x), cos(x)", 1),
        ("(3, 4), (1, 2)", "(1, 2), (3, 4)", 1),
        ("[(3, 4), (1, 2)]", "(1, 2), (3, 4)", 1),
        ("{b, a}", "a, b", 1),
        ("(1, 4), (3, 2)", "(1, 2), (3, 4)", 0),
        ("a, a, b", "a, b", 0),
        ("a, b)", "a, b", 0),
        ("", "a", 0),
    ],
)
def test_sets_of_items_with_brackets(answer, reference, right, tmp_path):
    """The bracket of whichever item came last was taken for one around all of them."""
    path = tmp_path / "sets.jsonl"
    path.write_text(json.dumps({"question": "which?", "answer": reference, "check": "set"}) + "\n")
    task = FileTask(str(path))
    assert task.score(task.problem(0), answer) == right


def test_the_last_line_decides(tmp_path):
    """`True` without a line end behind it, after another line, was wrong."""
    path = tmp_path / "written.jsonl"
    programs = ["import sys\nsys.stdout.write('checked\\nTrue')", "print('checked')\nprint(True)", "print('True\\nno')"]
    rows = [{"question": f"{i}?", "answer": "4", "check": "python", "program": p} for i, p in enumerate(programs)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = FileTask(str(path))
    register(task)
    try:
        with Executor() as executor:
            assert [is_right(task.problem(i), "4", executor) for i in range(3)] == [True, True, False]
    finally:
        del tasks.TASKS[task.name]


def test_texts_may_hold_any_line_separator(tmp_path):
    """U+2028 and its like end no line of JSON."""
    path = tmp_path / "lines.jsonl"
    path.write_text(
        json.dumps({"question": "a\u2028b\u0085c?", "answer": "4"}, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    assert FileTask(str(path)).problem(0).question == "a\u2028b\u0085c?"


def test_tasks_without_data_are_left_out(monkeypatch, capsys):
    """One missing download must not end a run over 144 tasks; but who names a task wants that task."""
    for task in mathematics.TASKS:
        monkeypatch.delitem(task.__dict__, "_rows", raising=False)
    monkeypatch.setenv("R1CI_DATA", "nowhere")
    monkeypatch.setattr(tasks, "TASKS", {"gcd": get_task("gcd"), "gsm": get_task("gsm")})
    assert {problem.task for problem in draw_problems("all", "rl", 2)} == {"gcd"}
    said = capsys.readouterr().err
    assert said.startswith("1 tasks have no data here: gsm; gsm: cannot be read from R1CI_DATA=nowhere")
    with pytest.raises(ValueError, match="gsm: cannot be read"):
        draw_problems("gcd,gsm", "rl", 2)
    with pytest.raises(ValueError, match="1 tasks have no data here"):
        draw_problems("symbench", "rl", 2)


def test_the_command_line_reads_files(mine):
    """`python tasks.py mine.jsonl`: a new user's first question to their own file."""
    done = subprocess.run(
        [sys.executable, "tasks.py", mine, "--index", "1", "--answer", "7, 5, 3, 2"],
        cwd=tasks.ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "primes below ten?" in done.stdout and "verdict: right" in done.stdout
