"""The chat: what is shown is what was sampled, on a terminal, in a pipe, and when it is interrupted."""

import dataclasses
import io
import itertools
import logging
import os
import re
import select
import signal
import sys
import threading
from concurrent.futures import Future

import pytest
import torch
from accelerate import PartialState
from conftest import ByteTokenizer
from test_rollout import ScriptedRollout, result, scripted_bundle
from test_training import random_bundle

import chat
from chat import BOLD, DIM, PLAIN, Chat, ChatArguments
from checkpoint import load_bundle
from cli import ROOT, UserError, parse_arguments, run_main
from executor import Executor
from rollout import Rollout
from suites.base import Problem

TINY = str(ROOT / "assets/tiny")
UNICODE = 'Wörter, €, 😀.\n```python\nprint("é😀")\n```'
OBSERVED = "\nCode Execution Results:\né😀\n"
ENDLESS = "```python\nwhile True: pass\n```"


@pytest.fixture(scope="module", autouse=True)
def on_cpu():
    PartialState(cpu=True)  # the first call decides, also where there is a GPU


@pytest.fixture(scope="module")
def executor():
    with Executor() as executor:
        yield executor


@pytest.fixture(autouse=True)
def colours(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)


class Pieces(io.StringIO):
    """Remembers what was written at a time."""

    def __init__(self):
        super().__init__()
        self.pieces: list[str] = []

    def write(self, text: str) -> int:
        self.pieces += [text] * bool(text)
        return super().write(text)


class ScriptedChat(ScriptedRollout, Chat):
    """A chat with a model that says `scripts[question]`."""


def scripted_chat(scripts: dict[str, str], executor, terminal: bool = False, **arguments) -> ScriptedChat:
    parsed = dataclasses.replace(ChatArguments(), **arguments)
    talk = ScriptedChat(scripted_bundle(), executor, parsed, Pieces(), terminal)
    talk.scripts = {question: list(reply.encode()) for question, reply in scripts.items()}
    return talk


def text_of(episode, tokenizer) -> str:
    """The reply, decoded at once rather than as it grew."""
    spans = [span for turn in episode.turns for span in (turn.start, turn.end)]
    return "".join(
        tokenizer.decode(episode.tokens[a:b], skip_special_tokens=True) for a, b in itertools.pairwise(spans)
    )


# --------------------------------------------------------------------------------------------------------------------
# what is shown


def test_characters_of_several_tokens_are_shown_whole(executor):
    """Decoded token by token, an emoji is four replacement marks; observations are shown once, where they belong."""
    talk = scripted_chat({"q": UNICODE + "Só <<<ñ>>>"}, executor)
    episode = talk.ask("q")
    assert text_of(episode, ByteTokenizer()) == f"{UNICODE}{OBSERVED}Só <<<ñ>>>"
    assert talk.out.getvalue() == f"{UNICODE}{OBSERVED}Só <<<ñ>>>\nanswer: ñ\n"
    characters = [*UNICODE, OBSERVED, *"Só <<<ñ>>>"]
    assert talk.out.pieces[: len(characters)] == characters  # each as soon as it is known


@pytest.mark.parametrize("seed", range(6))
def test_pieces_of_noise_join_to_the_text_of_the_episode(seed, executor):
    """A random model writes broken characters and special tokens: no piece may be lost, doubled or joined wrongly."""
    bundle = random_bundle(seed)
    talk = Chat(bundle, executor, dataclasses.replace(ChatArguments(), seed=seed), Pieces(), False)
    episode = talk.ask("Hm?")
    whole = text_of(episode, bundle.tokenizer)
    assert talk.out.getvalue().startswith(whole) and "<|" not in whole
    assert re.fullmatch(r"\n?(no )?answer: [^\n]*\n", talk.out.getvalue()[len(whole) :])
    assert len(talk.out.pieces) > len(episode.tokens) / 4


def test_end_tokens_are_not_shown(executor):
    """Tokenizers do not always know that the token which ends a reply is a special one."""
    talk = scripted_chat({"q": "I do not know.~"}, executor)
    talk.bundle.end_ids = [ord("~")]
    assert talk.ask("q").finish == "no_answer"
    assert talk.out.getvalue() == "I do not know.\nno answer: the reply ended without one\n"


def test_watching_does_not_change_what_is_sampled(executor):
    """A chat that samples by other rules than training and evaluation shows another model than was trained."""
    bundle, question = load_bundle(TINY), "What is the gcd of 12 and 18?"
    arguments = dataclasses.replace(ChatArguments(), max_reply_tokens=100, seed=3)
    talk = Chat(bundle, executor, arguments, io.StringIO(), True)
    plain = Rollout(bundle, executor, arguments, seed=3)
    for step in range(2):
        seen = talk.ask(question)
        [unseen], _ = plain([Problem("gcd", 5, question, "6")], step=step)
        assert torch.equal(seen.tokens, unseen.tokens) and torch.equal(seen.logprobs, unseen.logprobs)
        assert (seen.finish, seen.answer, seen.code_runs) == (unseen.finish, unseen.answer, unseen.code_runs)


def test_a_question_asked_again_meets_other_random_numbers(executor):
    """Asking once more must not repeat the same reply at temperature 1, but the same seed must repeat the session."""
    bundle, arguments = load_bundle(TINY), dataclasses.replace(ChatArguments(), max_reply_tokens=40)

    def session(**more) -> list[list[int]]:
        talk = Chat(bundle, executor, dataclasses.replace(arguments, **more), io.StringIO(), False)
        return [talk.ask("What is 2 + 3?").tokens.tolist() for _ in range(2)]

    first, second = session()
    assert first != second and session() == [first, second] and session(seed=1)[0] != first
    greedy = session(temperature=0.0)
    assert greedy[0] == greedy[1]


@pytest.mark.parametrize("terminal, no_color", [(True, ""), (True, "1"), (False, "")])
def test_colours_are_for_terminals(terminal, no_color, executor, monkeypatch):
    """Escape sequences in a file or a pipe are noise; on a terminal, what the model did not write must stand apart."""
    monkeypatch.setenv("NO_COLOR", no_color)
    out = scripted_chat({"q": UNICODE + "So <<<7>>>"}, executor, terminal)
    out.ask("q")
    dim, bold, plain = (DIM, BOLD, PLAIN) if terminal and not no_color else ("", "", "")
    notice = f"{dim} [running]{plain}" if terminal else ""
    shown = f"{UNICODE}{notice}{dim}{OBSERVED}{plain}So <<<7>>>\nanswer: {bold}7{plain}\n"
    assert out.out.getvalue() == shown


def test_the_notice_is_shown_before_the_program_ends():
    """A notice that comes together with the output says nothing."""

    class Watching:
        def submit(self, code: str) -> Future:
            threading.Timer(0.05, self.end).start()
            self.future = Future()
            return self.future

        def end(self) -> None:
            self.seen = talk.out.getvalue()
            self.future.set_result(result())

    talk = scripted_chat({"q": "```python\n1\n```<<<7>>>"}, Watching(), terminal=True)
    talk.ask("q")
    assert talk.executor.seen.endswith(f"```{DIM} [running]{PLAIN}")
    assert talk.out.getvalue().count("[running]") == 1


def test_a_program_that_is_not_run_is_not_said_to_run(executor):
    """Once no runs are left, a block is answered with a note at once."""
    talk = scripted_chat({"q": "```python\n1\n```\n" * 2 + "<<<7>>>"}, executor, terminal=True, max_code_runs=1)
    talk.ask("q")
    assert talk.out.getvalue().count("[running]") == 1 and "Not run" in talk.out.getvalue()


def test_programs_do_not_drive_the_terminal(executor):
    """Output of a program can hold sequences that clear the screen, set the title or fill the clipboard."""
    code = "```python\nprint('a\\x1b[2J\\x9b1m\\tb')\n```"
    talk = scripted_chat({"q": code + "\x1b]0;x\x07 <<<7>>>"}, executor, terminal=True)
    talk.ask("q")
    bare = talk.out.getvalue().replace(DIM, "").replace(BOLD, "").replace(PLAIN, "")
    assert "\nCode Execution Results:\na\\x1b[2J\\x9b1m\tb\n\\x1b]0;x\\x07 <<<7>>>" in bare


class Failing:
    def submit(self, code: str) -> Future:
        future: Future = Future()
        future.set_result(result("sandbox_error", "", "sandbox error: out of processes\n"))
        return future


@pytest.mark.parametrize(
    "reply, arguments, reason",
    [
        ("Hm.\0", {}, "the reply ended without one"),
        ("on " * 99, {"max_reply_tokens": 20}, "no room is left (--max_reply_tokens 20, context 512)"),
        ("on\n" * 99, {"max_reply_tokens": 21}, "no room is left (--max_reply_tokens 21, context 512)"),
        ("é" * 99, {"max_reply_tokens": 21}, "no room is left (--max_reply_tokens 21, context 512)"),  # half of one
        ("```python\n1\n```\n" * 3, {"max_code_runs": 1}, "no code runs are left (--max_code_runs 1)"),
        ((ENDLESS + "\n") * 2, {"code_timeout": 0.1}, "two programs in a row timed out"),
        ("```python\n1\n```", {"executor": Failing()}, "not run: sandbox error: out of processes"),
    ],
)
def test_why_there_is_no_answer(reply, arguments, reason):
    """A reply that just stops leaves the user guessing which limit it met."""
    arguments = dict(arguments)
    with Executor(timeout=arguments.get("code_timeout", 5.0)) as executor:
        talk = scripted_chat({"q": reply}, arguments.pop("executor", executor), **arguments)
        episode = talk.ask("q")
    assert episode.answer is None
    text = text_of(episode, ByteTokenizer())
    assert talk.out.getvalue() == text + ("" if text.endswith("\n") else "\n") + f"no answer: {reason}\n"


def test_a_question_that_does_not_fit_is_one_line(executor):
    """It must not end the program, nor spoil the next question."""
    talk = scripted_chat({"q": "<<<7>>>"}, executor)
    assert talk.ask("?" * 600).finish == "prompt_too_long"
    assert talk.out.getvalue() == "no answer: the prompt has 607 tokens, too many for a context of 512\n"
    assert talk.ask("q").answer == "7"


def test_a_question_that_does_not_fit_brings_no_warnings(capsys):
    """transformers warns of indexing errors, which do not come, before our line says what is the matter."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append
    logging.getLogger("transformers").addHandler(handler)
    with pytest.raises(SystemExit, match="1"):
        chat.main([TINY, "?" * 3000])
    logging.getLogger("transformers").removeHandler(handler)
    assert re.fullmatch(r"no answer: the prompt has 30\d\d tokens, too many[^\n]*\n", capsys.readouterr().out)
    assert not records


def test_questions_that_are_no_text(executor):
    """Bytes of another encoding come from the command line as lone surrogates, which no tokenizer takes."""
    talk = Chat(load_bundle(TINY), executor, dataclasses.replace(ChatArguments(), max_reply_tokens=3), Pieces(), False)
    assert "caf?" in talk.tokenizer.decode(talk.ask("caf\udce9").tokens)


# --------------------------------------------------------------------------------------------------------------------
# Ctrl-C


def interrupt_unnoticed() -> None:
    """A SIGINT that another thread takes, so that the main one is not woken. The same comes about when the main thread
    takes it just before it waits for a lock (once in a few times, on a busy machine)."""
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)


def test_ctrl_c_ends_the_reply_and_its_program():
    """A program left behind would hold a core until its time limit, and its reply would come up in the next one."""
    with Executor(timeout=20) as first:
        talk = scripted_chat({"q": ENDLESS, "r": "```python\nprint(7)\n```<<<8>>>"}, first, True)
        write, submit, programs = talk.out.write, first.submit, []
        first.submit = lambda code: programs.append(submit(code)) or programs[-1]

        def interrupting(text: str) -> int:
            if "[running]" in text:
                threading.Timer(0.3, interrupt_unnoticed).start()
            return write(text)

        talk.out.write = interrupting
        with pytest.raises(KeyboardInterrupt):
            talk.ask("q")
        assert talk.out.getvalue().endswith("stopped\n")
        # Not by its time limit, but by the end of the executor, which ends all its processes: test_executor.py
        assert programs[0].done() and programs[0].result().status == "sandbox_error"
        before = len(talk.out.getvalue())
        talk.out.write = write
        assert talk.ask("r").answer == "8"
        assert "Results:\n7\n" in talk.out.getvalue()[before:] and "while" not in talk.out.getvalue()[before:]
        talk.executor.close()


def interrupted_at(step: int):
    """A scripted chat whose user presses Ctrl-C at a generator step of the reply to "stop"."""

    class Interrupted(ScriptedChat):
        scripts = {"stop": list(b"on and on " * 30), "q": list(b"<<<7>>>"), "r": list(b"No.\0")}  # noqa: RUF012

        def on_step(self, generator, live):
            super().on_step(generator, live)
            if generator.steps == step and any(f.problem.question == "stop" for f in live.values()):
                signal.raise_signal(signal.SIGINT)

    return Interrupted


def play(monkeypatch, argv: list[str], stdin, stdout=None) -> int:
    """The exit code of `chat.py` with a scripted model."""
    monkeypatch.setattr(chat, "load_bundle", lambda *_: scripted_bundle())
    monkeypatch.setattr(chat, "Chat", interrupted_at(5))
    monkeypatch.setattr(sys, "stdin", stdin)
    if stdout is not None:
        monkeypatch.setattr(sys, "stdout", stdout)

    def executors() -> int:
        return sum(thread.name == "executor" for thread in threading.enumerate())

    before = executors()
    try:
        chat.main(argv)
    except SystemExit as stop:
        return stop.code
    finally:
        assert executors() == before  # all are closed
    return 0


def screen(master: int) -> str:
    """What has been written to a pseudo-terminal so far."""
    shown = b""
    while select.select([master], [], [], 0.1)[0]:
        shown += os.read(master, 1 << 16)
    return shown.decode().replace("\r\n", "\n")


def terminal_session(monkeypatch, argv: list[str], typed: bytes) -> tuple[int, str]:
    """Exit code and what a terminal shows, the echo of what was typed included."""
    master, slave = os.openpty()
    with open(slave, encoding="utf-8") as stdin, open(slave, "w", encoding="utf-8", closefd=False) as stdout:
        os.write(master, typed)
        code = play(monkeypatch, argv, stdin, stdout)
        stdout.flush()
        shown = screen(master)
    os.close(master)
    return code, shown


def test_a_session_on_a_terminal(monkeypatch):
    """Ctrl-C during a reply goes back to the prompt, an empty line asks again, Ctrl-D ends, and the exit code is 0."""
    code, shown = terminal_session(monkeypatch, ["MODEL"], b"stop\n\nq\nr\n\x04")
    assert code == 0
    assert shown.count("> ") == 5
    first, rest = shown.split("stopped\n")
    assert first.endswith("> on an\n")  # the fifth step is where it was stopped
    assert rest == f"\n> > <<<7>>>\nanswer: {BOLD}7{PLAIN}\n\n> No.\nno answer: the reply ended without one\n\n> \n"


def test_ctrl_c_at_the_prompt_ends(monkeypatch):
    """The way out of everything in a terminal must not print a traceback."""
    monkeypatch.setattr("builtins.input", lambda prompt: signal.raise_signal(signal.SIGINT))
    code, shown = terminal_session(monkeypatch, ["MODEL"], b"")
    assert code == 0 and shown.endswith("ends.\n\n\n")


def test_one_question_on_a_terminal(monkeypatch):
    """A question on the command line needs no prompt, but a terminal shows its reply with colours."""
    assert terminal_session(monkeypatch, ["MODEL", "q"], b"") == (0, f"<<<7>>>\nanswer: {BOLD}7{PLAIN}\n")
    code, shown = terminal_session(monkeypatch, ["MODEL", "stop"], b"")
    assert (code, shown) == (130, "on an\nstopped\n")
    master, slave = os.openpty()
    with open(slave, "w", encoding="utf-8") as stdout:  # a script's standard input may be anything
        assert play(monkeypatch, ["MODEL", "q"], lines(b"r\n"), stdout) == 0
        assert screen(master) == f"<<<7>>>\nanswer: {BOLD}7{PLAIN}\n"
    os.close(master)


def test_one_question_into_a_file(monkeypatch, capsys):
    """The answer to a single question is read by scripts."""
    assert play(monkeypatch, ["MODEL", "q"], lines(b"r\n")) == 0
    assert capsys.readouterr().out == "<<<7>>>\nanswer: 7\n"
    assert play(monkeypatch, ["MODEL", "r"], lines(b"q\n")) == 1


def lines(data: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(data), encoding="utf-8")


def test_questions_from_a_pipe(monkeypatch, capsys):
    """No prompt, no colours, blank lines and a last line without an end; bytes of another encoding are no traceback."""
    assert play(monkeypatch, ["MODEL"], lines(b"q\n\n \n r \nq")) == 1  # r was not answered
    seven, none = "<<<7>>>\nanswer: 7\n\n", "No.\nno answer: the reply ended without one\n\n"
    assert capsys.readouterr().out == seven + none + seven
    assert play(monkeypatch, ["MODEL"], lines(b"q\nstop\nq\n")) == 130
    assert capsys.readouterr().out == seven + "on an\nstopped\n"
    assert play(monkeypatch, ["MODEL"], lines(b"q")) == 0
    monkeypatch.setattr(Chat, "ask", lambda self, question: print(ascii(question)) or result())
    with pytest.raises(AttributeError):  # the stand-in has no answer
        play(monkeypatch, ["MODEL"], lines(b"caf\xe9\n"))
    assert "'caf\\ufffd'" in capsys.readouterr().out


def test_a_pipe_into_a_terminal_has_no_colours(monkeypatch):
    """The output of a script that asks is often looked at, but then it is not a dialogue."""
    master, slave = os.openpty()
    with open(slave, "w", encoding="utf-8") as stdout:
        assert play(monkeypatch, ["MODEL"], lines(b"q\n"), stdout) == 0
        stdout.flush()
        assert screen(master) == "<<<7>>>\nanswer: 7\n\n"
    os.close(master)


# --------------------------------------------------------------------------------------------------------------------
# arguments


@pytest.mark.parametrize(
    "argv, model, question",
    [
        ([], "out/grpo/checkpoint", ""),
        (["m"], "m", ""),
        (["m", "What is it?"], "m", "What is it?"),
        (["--temperature", "0", "m", "q"], "m", "q"),
        (["m", "--temperature", "0", "q"], "m", "q"),
        (["m", "-7 * 6 = ?", "--temperature=0"], "m", "-7 * 6 = ?"),
        (["m", "-7+6"], "m", "-7+6"),
    ],
)
def test_model_and_question_are_bare_words(argv, model, question):
    """Flags may stand anywhere, and a question may begin with a minus sign."""
    arguments = parse_arguments(ChatArguments, argv, words=("model", "question"))
    assert (arguments.model, arguments.question) == (model, question)
    assert arguments.temperature == (0.0 if any("temp" in word for word in argv) else 1.0)
    assert (arguments.slots, arguments.deterministic) == (1, False)


@pytest.mark.parametrize(
    "argv, message",
    [
        (["/nowhere/at/all"], "there is no model folder /nowhere/at/all"),
        ([TINY, "--prompt_style", "fre"], "unknown prompt style 'fre': one of free, text, code, bare"),
        ([TINY, "--temperature", "-1"], "--temperature must be at least 0"),
        ([TINY, "--temperature", "nan"], "--temperature must be at least 0"),
        ([TINY, "--max_reply_tokens", "0"], "--max_reply_tokens at least 1"),
    ],
)
def test_mistakes_end_in_one_line(argv, message):
    """A misspelt folder is not worth a traceback."""
    with pytest.raises(SystemExit) as stop:
        run_main(lambda: chat.main([*argv]))
    assert message in stop.value.code and "\n" not in stop.value.code


@pytest.mark.parametrize("argv", [["m", "q", "too many"], ["m", "--modle", "x"], ["--slots", "3"]])
def test_what_is_not_understood_is_refused(argv):
    """A word too many is an unquoted question: answering its first word would be silly."""
    with pytest.raises(UserError, match="unknown arguments: "):
        chat.main(argv)


def test_the_scripts_way_to_stop_is_not_that_of_a_chat(capsys, monkeypatch):
    """`run_main` ends the program on a SIGINT; here it would never come back to the prompt."""
    monkeypatch.setattr(chat, "converse", lambda _: signal.raise_signal(signal.SIGINT))
    with pytest.raises(SystemExit) as stop:
        run_main(lambda: chat.main([TINY]))
    assert stop.value.code == 130 and capsys.readouterr().err == ""


def test_help_shows_the_examples(capsys):
    """argparse reflows a description: command lines in the midst of a paragraph cannot be read."""
    with pytest.raises(SystemExit):
        chat.main(["--help"])
    out = capsys.readouterr().out
    assert "[model] [question] [--flag value ...]" in out and chat.__doc__.strip() in out
    assert "--slots" not in out and "(default: 256)" in out
