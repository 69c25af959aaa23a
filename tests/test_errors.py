"""What a user can get wrong: models, arguments, places, data. Each ends in one line, before anything is computed."""

import dataclasses
import json
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
from accelerate import PartialState
from test_training import random_bundle

import cli
import evaluate
import grpo
import model
import scripted
import sft
import training
from checkpoint import load_bundle, save_bundle
from cli import ABOVE_ZERO, AT_LEAST, ROOT, run_main
from rollout import prompt_tokens
from tasks import problems

TINY = str(ROOT / "assets/tiny")
SCRIPTS = {"sft": sft.main, "grpo": grpo.main, "evaluate": evaluate.main}
# Small runs of each script; a flag that is given twice counts the last time.
FLAGS = {
    "sft": "--tasks gcd --trajectories 16 --batch_size 8 --epochs 1 --warmup 0",
    "grpo": "--tasks gcd --problems_per_task 4 --steps 2 --prompts_per_step 2 --group_size 2 --max_reply_tokens 40",
    "evaluate": "--tasks gcd --problems_per_task 2 --max_reply_tokens 8 --show 0",
}


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


def line(main: Callable, *argv: str) -> str:
    """The one line that a command line ends in, less the name of the script."""
    with pytest.raises(SystemExit) as stop:
        run_main(lambda: main([*argv]))
    assert isinstance(stop.value.code, str)  # Python prints it on stderr, and exits with 1
    name, text = stop.value.code.split(": ", 1)
    assert name == Path(sys.argv[0]).name and "\n" not in text
    return text


def run(script: str, flags: str = "", model: str = TINY) -> str:
    """The line that a small run of a script ends in, with more flags."""
    return line(SCRIPTS[script], "--model", model, "--out", "run", *FLAGS[script].split(), *flags.split())


# --------------------------------------------------------------------------------------------------------------------
# models


def cut(file: str, size: int) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:size])


def configure(**values) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        stored = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**stored, **values}))

    return change


def without(*names: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / name).unlink() for name in names]


@pytest.mark.parametrize(
    "damage, message",
    [
        (without("config.json"), "model has no config.json: it is not a Hugging Face model folder"),
        (without("model.safetensors"), "model has no weights"),
        (without("tokenizer.json"), "model has no tokenizer (tokenizer.json)"),  # transformers makes up an empty one
        (without("chat_template.jinja"), "has no chat template: take an instruction-tuned model"),
        (cut("model.safetensors", 50_000), "model.safetensors is damaged, perhaps cut off while it was copied"),
        (cut("model.safetensors", 0), "model.safetensors is damaged"),
        (cut("tokenizer.json", 900), "the tokenizer in model cannot be read"),
        (cut("generation_config.json", 9), "generation_config.json cannot be read"),  # its end tokens would be lost
        (cut("config.json", 9), "config.json does not describe a model"),
        (lambda folder: (folder / "config.json").write_text("[]"), "config.json does not describe a model"),
        (configure(hidden_size=64), "model.safetensors: the shape of model.embed_tokens.weight is [1024, 32]"),
        (configure(num_hidden_layers=5), "config.json does not describe a model"),
        (configure(num_hidden_layers=5, layer_types=None), "model lacks the weights layers."),
        (configure(model_type="gpt2"), "'gpt2' is not supported; known families: qwen2, qwen3, llama"),
        (configure(model_type="mistral"), "'mistral' is not supported; known families: qwen2, qwen3, llama"),
        (configure(model_type=["qwen2"]), "config.json does not describe a model"),
        (configure(use_sliding_window=True), "use_sliding_window=True is not supported; known: False"),
        (configure(hidden_act="gelu"), "activation 'gelu' is not supported; known: silu"),
        (configure(rope_parameters={"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4}), "'yarn' is not supported"),
        (
            configure(rope_parameters={"rope_type": "llama3", "rope_theta": 1e4}),
            "config.json does not describe a model",
        ),
    ],
)
def test_a_model_that_is_not_whole_or_not_ours_is_named(damage, message, folder):
    """A download cut off in the middle, a folder copied without its tokenizer, a family that would be computed
    wrongly: a traceback from inside a library, or worse, a model that answers nonsense."""
    damage(folder)
    assert message in run("evaluate", model="model")
    assert not Path("run").exists()


def test_a_tokenizer_of_another_model_is_refused(folder):
    """Its tokens would lie beyond the embedding: an index error in the first prompt that holds one."""
    bundle = load_bundle(str(folder))
    bundle.tokenizer.add_tokens(["<one more>"])
    bundle.tokenizer.save_pretrained(folder)
    assert "the tokenizer of model has 1025 tokens, the model 1024" in run("grpo", model="model")


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_model_that_is_nowhere(script):
    """A misspelt path must neither become a download nor a traceback."""
    assert "there is no model folder nowhere (a name on the hub looks like" in run(script, model="nowhere")
    assert not Path("run").exists()


@pytest.fixture
def silent_hub(monkeypatch) -> Iterator[None]:
    """A hub behind a firewall: it takes connections and does not answer, for 20 s."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held = []
        threading.Thread(target=lambda: held.append(server.accept()), daemon=True).start()
        timer = threading.Timer(20, lambda: [connection.close() for connection, _ in held])
        timer.start()
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(model, "HUB_SECONDS", 0.2)
        yield
        timer.cancel()


def test_a_hub_out_of_reach_is_given_up(silent_hub, tmp_path, monkeypatch):
    """The download itself has no time limit: behind a firewall that drops packets it would wait for ever."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    text = run("evaluate", model="nobody/nothing")
    assert "there is no folder nobody/nothing, and the hub does not give us a model of that name (" in text
    assert "Timeout" in text  # ours, not the end of the connection


def test_a_model_from_the_hub_is_there_without_the_hub(silent_hub, folder, tmp_path, monkeypatch):
    """On a node without network, what was downloaded before must do."""
    cache = tmp_path / "cache/models--some--model"
    shutil.copytree(folder, cache / "snapshots" / ("0" * 40))
    (cache / "refs").mkdir()
    (cache / "refs/main").write_text("0" * 40)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    assert model.resolve_model("some/model") == cache / "snapshots" / ("0" * 40)


# --------------------------------------------------------------------------------------------------------------------
# arguments


@pytest.mark.parametrize(
    "content, message",
    [
        (b"steps: [1", "c.yaml is not valid YAML"),
        (b"- steps\n- rate", "c.yaml must hold `name: value` lines"),
        (b"hello", "c.yaml must hold `name: value` lines"),
        (b"out: caf\xe9", "c.yaml is not valid YAML: 'utf-8' codec can't decode"),
        (b"out: a\0b", "c.yaml is not valid YAML"),
        (b"stepz: 3\n7: 4", "c.yaml sets 7, stepz, which"),  # numbers and words do not compare
        (b"epochs: many", "argument --epochs: invalid int value: 'many'"),
        (b"epochs: [1, 2]", "unknown arguments: 2"),
        (b"out: --epochs", "argument --out: expected one argument"),
        (b"epochs: 0", "--epochs must be a number of at least 1, not 0"),
        (None, "there is no configuration file c.yaml"),
    ],
)
def test_bad_configuration_files(content, message):
    """A traceback from the reader, or a setting that is passed over in silence."""
    if content is not None:
        Path("c.yaml").write_bytes(content)
    assert message in line(sft.main, "c.yaml", "--data", "none.jsonl")


def test_configuration_files_in_the_wrong_place():
    """A folder, and a file behind the flags, which would otherwise be read as a stray word."""
    Path("c.yaml").mkdir()
    assert "there is no configuration file c.yaml" in line(sft.main, "c.yaml")
    assert "c.yaml; a configuration file comes first" in line(sft.main, "--epochs", "1", "c.yaml")
    assert "unknown arguments: --stepz 3 (--help lists all flags)" in line(grpo.main, "--stepz", "3")


ARGUMENTS = {"sft": sft.SFTArguments, "grpo": grpo.GRPOArguments, "evaluate": evaluate.EvaluateArguments}
NUMBERS = [
    (script, field.name)
    for script, cls in ARGUMENTS.items()
    for field in dataclasses.fields(cls)
    if field.type in (int, float)
]


@pytest.mark.parametrize("script, name", NUMBERS)
def test_numbers_that_make_no_sense_are_refused(script, name):
    """No step, slots for nobody, a negative learning rate: a division by zero after minutes, or a run that trains on
    nothing and ends well. Every number of every script has its bounds, so that a new flag cannot be forgotten."""
    least = {name: least for least, names in AT_LEAST.items() for name in names} | dict.fromkeys(ABOVE_ZERO, 1)
    numbers = ["-1", str(least[name] - 1)] if name not in ABOVE_ZERO else ["-0.5", "0"]
    floats = [] if ARGUMENTS[script].__dataclass_fields__[name].type is int else ["nan", "inf"]
    for value in numbers + floats:
        assert f"--{name} must be a number " in run(script, f"--{name} {value}")
    # Rejection alone can do with groups of one, and single trajectories with batches of one.
    more = {"grpo": {"method": "rejection"}, "sft": {"batch_size": 1}}.get(script, {})
    ARGUMENTS[script](**more | {name: least[name]})
    assert not Path("run").exists()


@pytest.mark.parametrize(
    "script, flags, message",
    [
        ("sft", "--schedule steps", "unknown schedule 'steps': one of constant, cosine, wsd"),
        ("grpo", "--schedule steps", "unknown schedule 'steps': one of constant, cosine, wsd"),
        ("grpo", "--aggregation words", "unknown aggregation 'words': one of token, sequence"),
        ("grpo", "--method ppo", "unknown method 'ppo': one of grpo, rejection"),
        ("grpo", "--group_size 1", "--group_size must be at least 2: an advantage compares"),
        ("evaluate", "--top_p 1.5", "--top_p is a share, at most 1, not 1.5"),
        ("evaluate", "--dtype half", "unknown dtype 'half': one of auto, float32, bfloat16"),
        ("grpo", "--prompts_per_step 5", "4 problems are fewer than --prompts_per_step 5"),
        ("sft", "--batch_size 17", "16 trajectories are fewer than one batch of 17"),
        ("sft", "--max_length 5", "0 trajectories of at most 5 tokens are fewer than one batch of 8"),
        ("evaluate", "--split training", "unknown split 'training': one of sft, rl, dev, test"),
        ("sft", "--report_to tensorbored", "unknown tracker 'tensorbored': one of tensorboard, wandb"),
        ("grpo", "--report_to tensorbored", "unknown tracker 'tensorbored': one of tensorboard, wandb"),
        ("sft", "--tasks gdc", "unknown task 'gdc': did you mean gcd?"),
        ("grpo", "--tasks gdc", "unknown task 'gdc': did you mean gcd?"),
        ("sft", "--tasks number_filtering", "no scripted programs for number_filtering"),
        ("sft", "--prompt_style fre", "unknown prompt style 'fre'"),
        ("grpo", "--prompt_style fre", "unknown prompt style 'fre'"),
        ("sft", "--seed 4294967296", "--seed must be below 2**32"),
        ("grpo", "--slots 1e3", "argument --slots: invalid int value: '1e3'"),
        ("grpo", "--deterministic perhaps", "argument --deterministic"),
        ("evaluate", "--model", "argument --model: expected at least one argument"),
    ],
)
def test_settings_that_do_not_exist(script, flags, message):
    """A misspelt word found after an older run was moved aside, or after the model was trained."""
    assert message in run(script, flags)
    assert not Path("run/metrics.jsonl").exists() and (script == "sft" or not Path("run").exists())


def test_a_group_of_one_is_enough_for_rejection_sampling():
    """Only an advantage needs a group to compare with."""
    assert grpo.GRPOArguments(method="rejection", group_size=1).group_size == 1


def test_a_tracker_that_is_not_installed_is_refused_at_once(monkeypatch):
    """Noticed after the run folder was made, it would have moved an older run aside for nothing."""
    monkeypatch.setitem(cli.TRACKERS, "wandb", lambda: False)
    assert run("grpo", "--report_to wandb") == "wandb is not installed: pip install -e '.[wandb]'"
    assert not Path("run").exists()


@pytest.mark.parametrize("script", ["grpo", "evaluate"])
def test_a_run_in_which_no_prompt_fits_does_not_begin(script, tmp_path):
    """Every episode would end as prompt_too_long: hours of training on nothing, or a table of zeros. One prompt that
    fits is enough: the others are logged, and leave the update."""
    save_bundle(random_bundle(max_position_embeddings=20), tmp_path / "short")
    assert "no prompt fits the context of short, which is 20 tokens" in run(script, model="short")
    assert not Path("run").exists()
    split = {"grpo": "rl", "evaluate": "test"}[script]
    pool = [problem for name in ("gcd", "letter_counting") for problem in problems(name, split, 4)]
    tokenizer = load_bundle(TINY).tokenizer
    lengths = sorted(len(prompt_tokens(tokenizer, problem.question, "bare")) for problem in pool)
    save_bundle(random_bundle(max_position_embeddings=lengths[4]), tmp_path / "middle")
    flags = [*FLAGS[script].split(), "--tasks", "gcd,letter_counting", "--problems_per_task", "4"]
    run_main(lambda: SCRIPTS[script](["--model", "middle", "--out", "run", *flags, "--slots", "4"]))
    episodes = [json.loads(text) for text in Path("run/episodes.jsonl").read_text().splitlines()]
    finishes = {episode["finish"] for episode in episodes}
    assert "prompt_too_long" in finishes and len(finishes) > 1
    assert not any(e["correct"] or e["advantage"] for e in episodes if e["finish"] == "prompt_too_long")


# --------------------------------------------------------------------------------------------------------------------
# places and data


@pytest.mark.parametrize("script", [*SCRIPTS, "scripted"])
@pytest.mark.parametrize(
    "out, message",
    [
        ("file", "/file: Not a directory"),
        ("file/run", "/file/run: Not a directory"),
        ("file/deep/run", "Not a directory"),
        ("/proc/run", "/proc: "),
        ("/sys/deep/run", "/sys: "),
        ("x" * 300, "File name too long"),
        ("", "is not the name of a folder"),
        (".", "is not the name of a folder"),
        ("..", "is not the name of a folder"),
    ],
)
def test_a_place_that_cannot_be_written_is_known_before_anything_is_computed(out, message, script, monkeypatch):
    """A whole warm start, only to learn that a file stands where the run folder should be."""
    Path("file").write_text("mine")
    for module in (training, evaluate):
        monkeypatch.setattr(module, "load_bundle", lambda *_: pytest.fail("loaded a model first"))
    monkeypatch.setattr(scripted, "compose", lambda *_: pytest.fail("began to write"))
    if script == "scripted":
        if out in ("", ".", "..", "file"):
            return  # a file that may be replaced, and folders, which are refused in another line
        text = line(scripted.main, "--out", f"{out}/t.jsonl")
    else:
        text = line(SCRIPTS[script], "--model", TINY, *FLAGS[script].split(), "--out", out)
    assert message in text and text.startswith("--out")
    assert [path.name for path in Path().iterdir()] == ["file"] and Path("file").read_text() == "mine"


def test_the_teacher_replaces_nothing_but_files(capsys):
    """Its file is renamed into place, which would turn /dev/null into an ordinary file."""
    Path("folder").mkdir()
    for out in ("folder", "/dev/null"):
        with pytest.raises(SystemExit) as stop:
            scripted.main(["--out", out, "--count", "1"])
        assert stop.value.code == 2 and f"--out {out} is no file" in capsys.readouterr().err


STORED = b'{"segments": [{"text": "q", "source": "prompt"}, {"text": "a", "source": "model"}]}\n'


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "there is no trajectory file t.jsonl"),
        (b"", "t.jsonl holds no trajectories"),
        (STORED + STORED[:30], "t.jsonl, line 2 is not a trajectory"),
        (STORED + b"\n" + STORED, "t.jsonl, line 2 is not a trajectory"),
        (STORED * 2 + STORED.replace(b"q", b"\xff"), "t.jsonl, line 3 is not a trajectory: UnicodeDecodeError"),
        (STORED.decode().encode("utf-16"), "t.jsonl, line 1 is not a trajectory: UnicodeDecodeError"),
        (STORED + STORED.replace(b"q", b"\\ud800"), "t.jsonl, line 2 is not a trajectory: UnicodeEncodeError"),
        (STORED + b"[" * 100_000, "t.jsonl, line 2 is not a trajectory: RecursionError"),
    ],
)
def test_data_that_cannot_be_read_names_the_line(content, message):
    """One bad byte among thousands of lines, and a traceback that names none; or a text that the tokenizer refuses
    in the middle of the run."""
    if content is not None:
        Path("t.jsonl").write_bytes(content)
    text = run("sft", "--data t.jsonl")
    assert message in text and len(text) < 200
    assert not Path("run").exists()
