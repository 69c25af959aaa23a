"""Checkpoints: Hugging Face folders that transformers loads, written under a temporary name and then renamed.

A run keeps several, `checkpoints/step-000020` and so on, each with what training needs to go on in `trainer/`. The
links `checkpoint` and `best` beside that folder lead to the last one and to the best by held-out accuracy.
"""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import textwrap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from huggingface_hub import save_torch_state_dict
from transformers import AutoTokenizer, GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase

from model import Decoder, hf_state_dict, load_config, load_model, resolve_model

STATE_FILE = "trainer/state.json"


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around what writes to `path`: the OSError of a full disk names the path, which a failed write does not know.
    Weights and tokenizers are written in Rust, whose exceptions are of another class."""
    try:
        yield
    except Exception as error:
        in_rust = re.search(r"\(os error (\d+)\)", str(error))
        number = int(in_rust[1]) if in_rust else getattr(error, "errno", None)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def write_whole(path: Path, lines: Iterable[str]) -> None:
    """Writes lines under a temporary name, then renames: a file of this name is a whole one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("w", encoding="utf-8", newline="\n") as file:
                file.writelines(lines)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yields a temporary folder beside `folder` that takes its place, whole, when the block ends without an error.

    A run that is killed, or a disk that fills up, while writing leaves what stood there before (a kill between the two
    renames leaves it under a hidden name that ends in .old).
    """
    folder = Path(folder)
    temporary, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{end}") for end in ("tmp", "old"))
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with writing(folder):
            temporary.mkdir(parents=True)
            yield temporary
            if folder.exists():  # a folder cannot be renamed onto one that holds files
                folder.rename(old)
            temporary.rename(folder)
    finally:
        if old.exists() and not folder.exists():  # interrupted between the two renames
            old.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(temporary, ignore_errors=True)


@dataclasses.dataclass
class Bundle:
    """What a Hugging Face folder holds, in the pieces that training and sampling need."""

    model: Decoder
    config: PretrainedConfig
    tokenizer: PreTrainedTokenizerBase
    generation: GenerationConfig

    @property
    def end_ids(self) -> list[int]:
        """The tokens that end a reply: for Qwen both <|im_end|> and <|endoftext|>."""
        ids = self.generation.eos_token_id
        if ids is None:
            ids = self.tokenizer.eos_token_id
        return list(ids) if isinstance(ids, list | tuple) else [ids]

    @property
    def end_id(self) -> int:
        """The token that a reply is trained to end with: the one that closes a message of the chat template."""
        return self.tokenizer.eos_token_id

    @property
    def prompt_style(self) -> str:
        """The head prompt that this checkpoint was trained with; one that does not say gets the full one."""
        return getattr(self.config, "prompt_style", "free")


def load_bundle(name: str, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Bundle:
    """Loads a model with its tokenizer and end tokens from a folder or the hub."""
    folder = resolve_model(name)
    model, tokenizer = load_model(str(folder), dtype, device), load_tokenizer(folder)
    if tokenizer.chat_template is None:
        raise ValueError(f"the tokenizer of {name} has no chat template: take an instruction-tuned model")
    if len(tokenizer) > model.config.vocab_size:
        raise ValueError(f"the tokenizer of {name} has {len(tokenizer)} tokens, the model {model.config.vocab_size}")
    generation = GenerationConfig(eos_token_id=tokenizer.eos_token_id)
    if (file := folder / "generation_config.json").is_file():
        try:
            generation = GenerationConfig.from_pretrained(folder)
        except (OSError, ValueError, TypeError) as error:
            raise ValueError(f"{file} cannot be read: {textwrap.shorten(str(error), 300)}") from error
    return Bundle(model, load_config(folder), tokenizer, generation)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Reads the tokenizer of a folder; raises ValueError or FileNotFoundError, in one line, if there is none."""
    # Where there is none, transformers makes up an empty one.
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json", "tokenizer.model")):
        raise FileNotFoundError(f"{folder} has no tokenizer (tokenizer.json): copy that of the model it came from")
    try:
        return AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # whatever the readers of the several formats raise
        raise ValueError(f"the tokenizer in {folder} cannot be read: {textwrap.shorten(str(error), 300)}") from error


def save_bundle(bundle: Bundle, folder: Path) -> None:
    """Writes what `load_bundle` reads, and `AutoModelForCausalLM.from_pretrained` too."""
    with atomic_folder(folder) as temporary:
        write_bundle(bundle, temporary)


def write_bundle(bundle: Bundle, folder: Path) -> None:
    write_model(bundle.model, bundle.config, folder)
    bundle.tokenizer.save_pretrained(folder)
    bundle.generation.save_pretrained(folder)


def save_model(model: Decoder, config: PretrainedConfig, folder: Path) -> None:
    """Writes configuration and weights alone."""
    with atomic_folder(folder) as temporary:
        write_model(model, config, temporary)


def write_model(model: Decoder, config: PretrainedConfig, folder: Path) -> None:
    config.dtype = model.embed_tokens.weight.dtype
    config.save_pretrained(folder)
    save_torch_state_dict(hf_state_dict(model), folder)
    for file in folder.glob("*.safetensors"):
        file.chmod(0o644)  # written for the owner alone, but a server may run as somebody else


# --------------------------------------------------------------------------------------------------------------------
# the checkpoints of a run


class Checkpoints:
    """Those of one run folder: the last `keep`, and the best."""

    def __init__(self, run: Path, keep: int):
        self.run, self.keep = run, keep
        self.folder = run / "checkpoints"

    def last(self) -> Path | None:
        """The folder of the last one that was written whole."""
        found = (self.run / "checkpoint").resolve()
        return found if (found / STATE_FILE).is_file() else None

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:06d}"

    def state(self, checkpoint: Path) -> dict[str, Any]:
        """What was saved beside weights and optimizer: how far the run was, and what it draws from."""
        return json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))

    def save(
        self,
        step: int,
        bundle: Bundle,
        save_trainer: Callable[[Path], None],
        state: dict[str, Any],
        best: bool = False,
    ) -> Path:
        """Writes the checkpoint of this step, on all ranks: `save_trainer` writes each rank's part of what is trained.
        It takes effect as a whole, when the link `checkpoint` is turned to it (the link `best` before, if it is that);
        then older ones go."""
        processes, folder = PartialState(), self.path(step)
        if self.last() == folder.resolve():  # nothing has happened since
            return folder
        temporary = folder.with_name(f".{folder.name}.tmp")
        if processes.is_main_process:
            with writing(folder):
                for left in self.folder.glob(".*.tmp"):  # by a run that was killed
                    shutil.rmtree(left)
                (temporary / STATE_FILE).parent.mkdir(parents=True)
        processes.wait_for_everyone()
        try:
            with writing(folder):
                save_trainer(temporary / "trainer")
            if processes.is_main_process:
                with writing(folder):
                    write_bundle(bundle, temporary)
                    (temporary / STATE_FILE).write_text(json.dumps(state), encoding="utf-8")
                    shutil.rmtree(folder, ignore_errors=True)  # the same step, of before an earlier one was resumed
                    temporary.rename(folder)
                    if best:  # first: a run that is killed here does this step again
                        self._link("best", folder)
                    self._link("checkpoint", folder)
                    self._prune()
        finally:
            if processes.is_main_process:
                shutil.rmtree(temporary, ignore_errors=True)
        processes.wait_for_everyone()
        return folder

    def _link(self, name: str, folder: Path) -> None:
        temporary = self.run / f".{name}.tmp"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(folder.relative_to(self.run))
        temporary.replace(self.run / name)

    def _prune(self) -> None:
        whole = sorted(self.folder.glob("step-*"))
        kept = {*whole[-self.keep :], *(self.run / name for name in ("checkpoint", "best"))}
        kept = {path.resolve() for path in kept}
        for path in whole:
            if path.resolve() not in kept:
                shutil.rmtree(path)
