"""The server over real HTTP, with the real client: what comes back is what the generator samples, whoever else asks."""

import asyncio
import contextlib
import random
import threading
from collections.abc import Iterator

import openai
import pytest
import torch
from accelerate import PartialState
from conftest import ByteTokenizer
from test_rollout import ScriptedModel, ScriptedRollout, result, scripted_bundle
from test_training import random_bundle

import serve
from checkpoint import Bundle, load_bundle
from cli import ROOT
from executor import Executor
from generator import Generator
from rollout import PROMPT_STYLES, Rollout, RolloutArguments, encode_trajectory, first_event, observation
from sampling import sampling_key
from serve import Engine, Handler, ServeArguments, Server, fold
from suites.base import Problem

TINY = str(ROOT / "assets/tiny")
CODE = "Let me see.\n```python\nprint(6 * 7)\n```"


@pytest.fixture(scope="module", autouse=True)
def on_cpu():
    PartialState(cpu=True)  # the first call decides, also where there is a GPU


@pytest.fixture(scope="module")
def tiny_bundle() -> Bundle:
    return load_bundle(TINY)


@pytest.fixture(scope="module")
def executor():
    with Executor() as executor:
        yield executor


@contextlib.contextmanager
def serving(bundle, scripts: dict[str, str] | None = None, **arguments) -> Iterator[Server]:
    """A server in threads. `scripts`: what the model says to prompts, in place of what it would."""
    with Server(("127.0.0.1", 0), Handler) as server:
        chosen = ServeArguments(**{"model": "m", "prompt_style": "bare", "slots": 4, "max_length": 512, **arguments})
        engine = server.engine = Engine(bundle, chosen)
        engine.asked = []  # the sequences, in the order in which they come to the generator
        add = engine.generator.add
        engine.generator.add = lambda *values: engine.asked.append(add(*values)) or engine.asked[-1]
        if scripts is not None:
            said = {tuple(prompt.encode()): list(text.encode()) for prompt, text in scripts.items()}
            engine.generator.model = ScriptedModel(engine.generator, said)
        thread = threading.Thread(target=serve.serve, args=(server,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            engine.stopped = True
            thread.join(10)
        assert not thread.is_alive()


def base_url(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_port}/v1"


CLIENT = openai.OpenAI(base_url="http://127.0.0.1", api_key="none", max_retries=0, timeout=30)  # slow to make


def client_of(server: Server) -> openai.OpenAI:
    return CLIENT.with_options(base_url=base_url(server))


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def ask(server: Server, messages: str | list, **more):
    messages = user(messages) if isinstance(messages, str) else messages
    return client_of(server).chat.completions.create(model="m", messages=messages, **more)


def streamed(server: Server, messages: str | list, **more) -> tuple[list[str], str, object]:
    """Deltas, how it finished, and the usage, of a single choice."""
    chunks = list(ask(server, messages, stream=True, stream_options={"include_usage": True}, **more))
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[-1].choices == []
    finishes = [chunk.choices[0].finish_reason for chunk in chunks[:-1]]
    assert finishes[:-1] == [None] * len(finishes[:-1])
    deltas = [chunk.choices[0].delta.content for chunk in chunks[:-1]]
    return [delta for delta in deltas if delta], finishes[-1], chunks[-1].usage


def direct(
    bundle, prompt: list[int], key: int, most: int, temperature=1.0, top_p=1.0, length=512
) -> tuple[str, str, int]:
    """Text, finish and number of tokens, by the generator alone, cut where a rollout would step in."""
    watch = torch.ones(len(bundle.tokenizer), dtype=torch.bool)
    generator = Generator(bundle.model, 1, length, watch, bundle.end_ids, temperature, top_p)
    sequence = generator.add(prompt, key, most, 0)
    while not sequence.ended:
        generator.step()
        tokens = generator.turn_tokens(sequence)
        text = bundle.tokenizer.decode([t for t in tokens if t not in bundle.end_ids], skip_special_tokens=True)
        if first_event(text):
            return text, "stop", len(tokens)
    return text, "length" if sequence.ended == "length" else "stop", len(tokens)


def prompt_of(bundle, messages: list) -> list[int]:
    text = bundle.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return bundle.tokenizer.encode(text, add_special_tokens=False)


# --------------------------------------------------------------------------------------------------------------------
# what comes back


@pytest.mark.parametrize(
    "kind, temperature, top_p", [("random", 1.0, 1.0), ("tiny", 0.6, 0.9), ("tiny", 0.0, 1.0), ("random", 1.3, 0.0)]
)
def test_a_reply_is_what_the_generator_samples(kind, temperature, top_p, tiny_bundle):
    """A prompt that is not the template's, a key that forgets the seed, or a lost or doubled token, whole or streamed.
    A random model also writes broken characters and special tokens."""
    bundle = random_bundle() if kind == "random" else tiny_bundle
    messages = [{"role": "system", "content": "Be brief."}, *user("What is 3 * 4?")]
    prompt = prompt_of(bundle, messages)
    most = {"max_tokens": 40, "temperature": temperature, "top_p": top_p}
    with serving(bundle) as server:
        for seed in (7, -(2**63)):
            key = sampling_key(seed, 0)
            text, finish, tokens = direct(bundle, prompt, key, 40, temperature, max(top_p, 1e-9))
            whole = ask(server, messages, seed=seed, **most)
            assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == (text, finish)
            deltas, ended, usage = streamed(server, messages, seed=seed, **most)
            assert ("".join(deltas), ended) == (text, finish) and len(deltas) > 3
            assert whole.usage == usage
            assert (usage.prompt_tokens, usage.completion_tokens) == (len(prompt), tokens)
            assert usage.total_tokens == len(prompt) + tokens


def test_choices_of_a_request_are_samples_of_their_own(tiny_bundle):
    """Copies of one reply would look like agreement; so would a seed of ours where the client names none."""
    prompt = prompt_of(tiny_bundle, user("What is 3 * 4?"))
    with serving(tiny_bundle, slots=2) as server:
        reply = ask(server, "What is 3 * 4?", n=5, seed=3, max_completion_tokens=30)
        texts, finishes = [""] * 5, [None] * 5
        options = {"stream": True, "stream_options": {"include_usage": True}}
        for chunk in ask(server, "What is 3 * 4?", n=5, seed=3, max_completion_tokens=30, **options):
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
                finishes[choice.index] = finishes[choice.index] or choice.finish_reason
        assert chunk.usage == reply.usage
        unseeded = {ask(server, "What is 3 * 4?", max_tokens=20).choices[0].message.content for _ in range(3)}
    expected = [direct(tiny_bundle, prompt, sampling_key(3, i), 30) for i in range(5)]
    assert [(c.message.content, c.finish_reason) for c in reply.choices] == [(text, end) for text, end, _ in expected]
    assert [choice.index for choice in reply.choices] == list(range(5)) and len({*texts}) > 1
    assert list(zip(texts, finishes, strict=True)) == [(text, end) for text, end, _ in expected]
    assert reply.usage.completion_tokens == sum(tokens for *_, tokens in expected)
    assert reply.usage.prompt_tokens == len(prompt) and len(unseeded) > 1


def test_many_at_once_each_get_their_own(tiny_bundle):
    """More requests than slots, of several kinds, by the asynchronous client: nobody gets what another asked for, and
    the same seed gives the same text as alone."""
    kinds = [(1.0, 1.0), (0.0, 1.0), (0.7, 0.9)]
    questions = [f"What is {i} * 4?" for i in range(12)]

    async def one(client: openai.AsyncOpenAI, i: int) -> str:
        temperature, top_p = kinds[i % 3]
        more = {"seed": i, "max_tokens": 12 + i, "temperature": temperature, "top_p": top_p}
        more |= {"model": "m", "messages": user(questions[i])}
        if i % 2:
            reply = await client.chat.completions.create(**more)
            return reply.choices[0].message.content
        stream = await client.chat.completions.create(stream=True, **more)
        chunks = [chunk async for chunk in stream]
        assert not any(chunk.usage for chunk in chunks)  # it was not asked for
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    async def everyone() -> list[str]:
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=60) as client:
            return await asyncio.gather(*(one(client, i) for i in range(12)))

    with serving(tiny_bundle, slots=3) as server:
        url = base_url(server)
        texts = asyncio.run(everyone())
        assert server.engine.generator.stats.passes  # of the last batch
    for i, (question, text) in enumerate(zip(questions, texts, strict=True)):
        prompt = prompt_of(tiny_bundle, user(question))
        assert text == direct(tiny_bundle, prompt, sampling_key(i, 0), 12 + i, *kinds[i % 3])[0], i


def test_requests_in_flight_are_generated_together():
    """Served one after the other, eight would take eight times the passes of one."""
    scripts = {f"Q: {i}\nA: ": "on and on " * 20 for i in range(8)}
    with serving(scripted_bundle(), scripts, slots=8) as server:
        engine = server.engine
        requests = [engine.request({"messages": user(str(i)), "max_tokens": 100}) for i in range(8)]
        for request in requests:
            engine.inbox.put(request)
        for request in requests:
            assert taken(request) == (("on and on " * 20)[:100], "length", 100)
        assert engine.generator.stats.passes < 200


def taken(request: serve.Request) -> tuple[str, str, int]:
    """The text, its finish and its number of tokens, of a request with one choice."""
    text, finish, tokens = "", "", 0
    while not finish:
        _, more, finish, tokens = request.pieces.get(timeout=20)
        text += more
    return text, finish, tokens


# --------------------------------------------------------------------------------------------------------------------
# folding

OUTPUTS = ["42\n", "", "\n\n", "  two  \n  lines  \n\n", "é😀\n", "x" * 3000]


@pytest.mark.parametrize("style", ["free", "bare"])
def test_a_conversation_is_the_token_stream_of_training(style, tiny_bundle):
    """Put into the template as a user message, an observation stands where the model has never seen one; joined to its
    neighbours before it is tokenized, it has other tokens."""
    draw = random.Random(0)
    with serving(tiny_bundle, prompt_style=style, max_length=2048) as server:
        for _ in range(10):
            segments = [{"text": "What is 6 * 7?", "source": "prompt"}, {"text": CODE, "source": "model"}]
            for _ in range(draw.randrange(4)):
                text = observation(result(stdout=draw.choice(OUTPUTS), stderr=draw.choice(["", "Error: 1\n"])))
                segments.append({"text": text, "source": "observation"})
                segments.append({"text": draw.choice(["So <<<42>>>", CODE, CODE + "\n", "\nHm"]), "source": "model"})
            role = {"prompt": "user", "model": "assistant", "observation": "user"}
            messages = [{"role": role[s["source"]], "content": s["text"]} for s in segments]
            for message in messages[2::2]:  # clients strip, or write the output on the same line
                message["content"] = draw.choice([str, str.strip, str.lstrip])(message["content"])
            n = draw.randint(1, len(segments))
            tokens, _ = encode_trajectory(tiny_bundle.tokenizer, segments[:n], style, 2, 96)
            reply = ask(server, messages[:n], max_tokens=1)
            assert server.engine.asked[-1].prompt == tokens[:-1].tolist()
            assert reply.usage.prompt_tokens == len(tokens) - 1


def test_a_conversation_by_hand_is_a_rollout(tiny_bundle, executor):
    """The model asked by a client that runs its programs does what it does in a rollout: the same tokens."""
    arguments = RolloutArguments(slots=4, max_reply_tokens=300)
    questions = [f"Calculate {a} * {b}." for a, b in ((3, 4), (12, 5), (7, 8), (20, 3))]
    problems = [Problem("", i, question, "") for i, question in enumerate(questions)]
    episodes, _ = Rollout(tiny_bundle, executor, arguments)(problems, temperature=0.0)
    with serving(tiny_bundle, max_length=600) as server:
        for question, episode in zip(questions, episodes, strict=True):
            messages, programs = user(question), 0
            while True:
                reply = ask(server, messages, temperature=0, max_tokens=300).choices[0]
                text = reply.message.content
                messages.append({"role": "assistant", "content": text})
                event = first_event(text)
                if not event or event[0] == "answer" or programs == 8:
                    break
                programs += 1
                messages.append({"role": "user", "content": observation(executor.map([event[1]])[0]).strip()})
                if len(server.engine.asked[-1].tokens) >= len(episode.tokens):
                    break
            stream = server.engine.asked[-1].tokens
            n = min(len(stream), len(episode.tokens))
            assert torch.equal(stream[:n], episode.tokens[:n]), question
            assert programs >= 1 and len(stream) >= len(episode.tokens)


def test_the_stream_of_a_rollout_with_awkward_output(executor):
    """The same with a model that writes what it is told, so that tracebacks, blank lines and no output all come."""
    programs = ["print(' 1\\n\\n')", "", "print(x)", "print('\\n\\n 2 é')", "import sys\nsys.stderr.write('e')"]
    said = [f"Run it.\n```python\n{program}\n```" for program in programs]
    rollout = ScriptedRollout(scripted_bundle(), executor, RolloutArguments(slots=4, max_reply_tokens=480))
    rollout.scripts = {"q": list(("".join(said) + "So <<<3>>>").encode())}
    [episode] = rollout([Problem("", 0, "q", "")])[0]
    assert episode.finish == "answer" and episode.code_runs == 5
    segments = episode.segments(ByteTokenizer())[1:]
    with serving(scripted_bundle(), {}) as server:
        messages = user("q")
        for segment in segments:
            role = "assistant" if segment["source"] == "model" else "user"
            messages.append({"role": role, "content": segment["text"].strip()})
        assert server.engine.request({"messages": messages}).prompt == episode.tokens.tolist()


def test_other_messages_are_those_of_the_template(tiny_bundle):
    """A dialogue, a system message, parts, a first word of the assistant: only what a program printed is folded."""
    results = {"role": "user", "content": "Code Execution Results:\n42"}
    folded = f"{CODE}\nCode Execution Results:\n42\nIt is 42."
    first = [{"role": "developer", "content": "Be brief."}, {"role": "assistant", "content": "Hello."}, *user("6 * 7?")]
    turn = [{"role": "assistant", "content": CODE}, results, {"role": "assistant", "content": "It is 42."}]
    parts = [{"type": "text", "text": "And 7 * 7?"}, {"type": "text", "text": "Quick."}]
    with serving(tiny_bundle) as server:
        ask(server, [*first, *turn, {"role": "user", "content": parts}], max_tokens=1)
        system = {"role": "system", "content": "Be brief."}
        template = [system, *first[1:], {"role": "assistant", "content": folded}, *user("And 7 * 7?\nQuick.")]
        assert server.engine.asked[-1].prompt == prompt_of(tiny_bundle, template)
        for alone in ([results], [*user("?"), results]):  # no assistant has spoken
            ask(server, alone, max_tokens=1)
            assert server.engine.asked[-1].prompt == prompt_of(tiny_bundle, alone)


@pytest.mark.parametrize("sent", ["{}\n42\n", "\n\n{}\n42", "{} 42", "{}42", " {} \n42\n\n", "{}"])
def test_the_ways_in_which_clients_put_output(sent):
    """Blanks more or less, and the model sees what it has never seen."""
    heading = "Code Execution Results:"
    messages = [*user("?"), {"role": "assistant", "content": CODE}, *user(sent.format(heading))]
    output = "42" if "42" in sent else "(no output)"
    assert fold(messages)[1][1] == {"text": f"\n{heading}\n{output}\n", "source": "observation"}


def test_the_head_prompt_comes_once():
    """A client that sends the prompt of the training must not have it doubled, and a second question needs none."""
    head = PROMPT_STYLES["free"]
    for question in ("Why?", head + "Why?"):
        spoken, segments = fold([*user(question), {"role": "assistant", "content": "So."}, *user("And?")], head)
        assert [message["content"] for message in spoken] == [head + "Why?", "So.", "And?"] and segments == []
    assert fold(user(PROMPT_STYLES["code"] + "Why?"), head)[0][0]["content"] == PROMPT_STYLES["code"] + "Why?"


def test_the_head_prompt_is_the_checkpoints():
    """A checkpoint asked by another prompt than it was trained with is another model."""
    for style, flag, expected in (("text", "", "text"), ("text", "code", "code"), ("bare", "", "bare")):
        engine = Engine(random_bundle(prompt_style=style), ServeArguments(prompt_style=flag, slots=1, max_length=300))
        assert engine.head == PROMPT_STYLES[expected]


# --------------------------------------------------------------------------------------------------------------------
# where a reply ends

SCRIPTS = {
    "Q: code\nA: ": CODE + "\nCode Execution Results:\n1\n",
    "Q: answer\nA: ": "So <<<42>>> and so on",
    "Q: end\nA: ": "Done.\0 not this",
    "Q: tilde\nA: ": "Done.~ nor this",
    "Q: letters\nA: ": "abcabdabcde" * 9,
    "Q: unicode\nA: ": "Wörter, €, 😀." + "\0",
    "Q: endless\nA: ": "on and on " * 1000,
}


@pytest.fixture(scope="module")
def scripted() -> Iterator[Server]:
    bundle = scripted_bundle()
    bundle.end_ids = [0, ord("~")]
    with serving(bundle, SCRIPTS, slots=2, max_length=256) as server:
        yield server


@pytest.mark.parametrize(
    "question, more, text, finish, tokens",
    [
        ("code", {}, CODE, "stop", len(CODE)),  # what follows is for the interpreter to say
        ("answer", {}, "So <<<42>>>", "stop", 11),
        ("end", {}, "Done.", "stop", 6),  # the end token counts, and is not shown
        ("tilde", {}, "Done.", "stop", 6),  # also one that the tokenizer takes for an ordinary one
        ("letters", {"max_tokens": 7}, "abcabda", "length", 7),
        ("letters", {"max_tokens": 5, "max_completion_tokens": 7}, "abcabda", "length", 7),
        ("letters", {"max_tokens": 10**6}, ("abcabdabcde" * 9), "stop", 100),
        ("endless", {}, "on and on o", "length", 11),  # what the flag leaves
        ("endless", {"max_tokens": 10**6}, ("on and on " * 50)[:242], "length", 242),  # what the context leaves
        ("letters", {"stop": "abd"}, "abc", "stop", 6),
        ("letters", {"stop": ["abcd", "zz"]}, "abcabd", "stop", 10),
        ("letters", {"stop": ["cab", "abca"]}, "", "stop", 4),  # the one that is whole first
        ("letters", {"stop": ["abcabx"], "max_tokens": 5}, "abcab", "length", 5),  # held back until then
        ("letters", {"stop": ["a"]}, "", "stop", 1),
        ("code", {"stop": ["```"]}, "Let me see.\n", "stop", 15),
        ("unicode", {}, "Wörter, €, 😀.", "stop", 20),
        ("unicode", {"max_tokens": 16}, "Wörter, €, \ufffd", "length", 16),  # the half of a character that came last
        ("unicode", {"stop": "€, 😀"}, "Wörter, ", "stop", 18),
        ("unicode", {"stop": ["€"], "temperature": 0}, "Wörter, ", "stop", 12),
    ],
)
def test_how_replies_end(question, more, text, finish, tokens, scripted, monkeypatch):
    """Each end, whole and streamed: text behind a stop string, half a character, a wrong count."""
    monkeypatch.setattr(scripted.engine.arguments, "max_reply_tokens", 11 if question == "endless" else 512)
    reply = ask(scripted, question, **more)
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == (text, finish)
    deltas, ended, usage = streamed(scripted, question, **more)
    assert ("".join(deltas), ended) == (text, finish)
    assert usage.completion_tokens == reply.usage.completion_tokens == tokens
    assert finish == "length" or all("\ufffd" not in delta for delta in deltas)
    if not more.get("stop"):
        assert len(deltas) == len(text)  # each character as soon as it is whole


def test_stop_strings_however_they_fall():
    """Random texts and stop strings against a search in the whole text, and in what has been sent at each moment."""
    draw, cases = random.Random(0), []
    for _ in range(150):
        text = "".join(draw.choices("abé", k=draw.randrange(1, 14)))
        stops = ["".join(draw.choices("abé", k=draw.randrange(1, 5))) for _ in range(draw.randrange(1, 4))]
        cases.append((text, stops))
    scripts = {f"Q: {i}\nA: ": text + "\0" for i, (text, _) in enumerate(cases)}
    with serving(scripted_bundle(), scripts, slots=16) as server:
        engine = server.engine
        requests = [engine.request({"messages": user(str(i)), "stop": cases[i][1]}) for i in range(len(cases))]
        for request in requests:
            engine.inbox.put(request)
        for (text, stops), request in zip(cases, requests, strict=True):
            # The first that is whole ends the text; of those that become so together, the one that begins first.
            whole = next((n for n in range(len(text) + 1) if any(text[:n].endswith(s) for s in stops)), None)
            cut = len(text) if whole is None else min(whole - len(s) for s in stops if text[:whole].endswith(s))
            sent, finish, tokens = "", "", 0
            while not finish:
                _, more, finish, tokens = request.pieces.get(timeout=20)
                sent += more
                assert text[:cut].startswith(sent)
            assert (sent, finish) == (text[:cut], "stop")
            assert tokens == len((text + "\0" if whole is None else text[:whole]).encode())


def test_an_open_block_of_the_assistant_is_closed(scripted):
    """The model goes on behind a message of the assistant that comes last: when its open block closes, the reply ends;
    one that is closed already does not end it at the first back-tick."""
    engine = scripted.engine
    asked = {"open": CODE[:-8], "closed": CODE + "\n"}
    for name, before in asked.items():
        prompt = tuple(f"Q: {name}\nA: {before}".encode())
        engine.generator.model.scripts[prompt] = list((CODE[-8:] + " `and` on" + "\0").encode())
    [first, second] = [
        ask(scripted, [*user(name), {"role": "assistant", "content": before}]).choices[0].message.content
        for name, before in asked.items()
    ]
    assert first == CODE[-8:] and second == CODE[-8:] + " `and` on"


def test_a_token_that_closes_a_block_is_shown_whole():
    """With half a character behind the back-ticks it would be held back, and the block come without its end."""
    bundle = scripted_bundle(("?",))
    bundle.tokenizer.pieces[256] = b"```\xe2"
    with serving(bundle, {}) as server:
        prompt = tuple(b"Q: q\nA: ")
        server.engine.generator.model.scripts[prompt] = [*CODE[:-3].encode(), 256, *b"and on"]
        assert "".join(streamed(server, "q")[0]) == CODE + "\ufffd"


@pytest.mark.parametrize("stop", ["\n", "e"])
def test_passes_that_are_replayed_change_nothing(stop, monkeypatch):
    """A GPU makes several tokens between two looks: those behind a stop string are neither shown nor counted; and what
    it records for each temperature does not pile up."""
    bundle = random_bundle(1)

    def replies() -> list[tuple]:
        with serving(bundle, slots=3) as server:
            monkeypatch.setattr(serve, "MOST_GRAPHS", 2)
            if replayed:
                server.engine.generator.capture = lambda function: function
            got = []
            for temperature in (1.0, 0.8, 0.6):
                options = {"temperature": temperature, "seed": 1, "stop": stop, "max_tokens": 30, "n": 3}
                reply = ask(server, "Hm?", **options)
                got.append(([c.message.content for c in reply.choices], reply.usage.completion_tokens))
            assert len(server.engine.generator.graphs) <= 2 + 3  # of the last, for three numbers of slots
            assert bool(server.engine.generator.graphs) == replayed
            return got

    replayed = False
    eager = replies()
    replayed = True
    assert replies() == eager and len({tokens for _, tokens in eager}) > 1


# --------------------------------------------------------------------------------------------------------------------
# fairness


def test_nobody_waits_for_ever():
    """Of two kinds of requests, the steady stream of one must not keep out the other."""
    engine = Engine(scripted_bundle(), ServeArguments(prompt_style="bare", slots=2, max_length=64))

    def request(temperature: float) -> serve.Request:
        return engine.request({"messages": user("q"), "temperature": temperature, "top_p": 0.5, "max_tokens": 2})

    first, cold, more, colder, last = request(1), request(0), request(1), request(0), request(1)
    engine.waiting = [first, cold, more, colder]
    engine.admit()
    assert [reply.request for reply in engine.live] == [first, more]  # all of its kind that are there
    assert engine.sampling == (1.0, 0.5) == (engine.generator.temperature, engine.generator.top_p)
    engine.waiting.append(last)
    engine.admit()
    assert [reply.request for reply in engine.live] == [first, more]  # the last one is behind two others
    assert engine.waiting == [cold, colder, last]
    while engine.live:
        engine.generator.step()
        engine.live = [reply for reply in engine.live if not reply.sequence.ended]
    engine.admit()
    assert [reply.request for reply in engine.live] == [cold, colder] and engine.sampling == (0.0, 1.0)
    engine.waiting.append(request(0))
    engine.admit()
    assert len(engine.live) == 2 and engine.waiting[0] is last
    engine.waiting = engine.waiting[1:]
    engine.admit()
    assert len(engine.live) == 3  # joins those in flight, as nobody else waits
