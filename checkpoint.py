"""Checkpoints: Hugging Face folders that transformers loads, written under a temporary name and then renamed."""

import contextlib
import dataclasses
import os
import re
import shutil
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict
from transformers import AutoTokenizer, GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase

from model import Decoder, hf_state_dict, load_config, load_model, resolve_model


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
        write_model(bundle.model, bundle.config, temporary)
        bundle.tokenizer.save_pretrained(temporary)
        bundle.generation.save_pretrained(temporary)


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
