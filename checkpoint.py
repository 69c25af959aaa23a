"""Checkpoints: Hugging Face folders that transformers loads, written under a temporary name and then renamed."""

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict
from transformers import AutoTokenizer, GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase

from model import Decoder, hf_state_dict, load_config, load_model, resolve_model


@contextlib.contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yields a temporary folder beside `folder` that takes its place, whole, when the block ends without an error.

    A run that is killed, or a disk that fills up, while writing leaves what stood there before (a kill between the two
    renames leaves it under a hidden name that ends in .old).
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if folder.exists():  # a folder cannot be renamed onto one that holds files
            old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
            folder.rename(old)
            temporary.rename(folder)
            shutil.rmtree(old)
        else:
            temporary.rename(folder)
    finally:
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
    model = load_model(str(folder), dtype, device)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.chat_template is None:
        raise ValueError(f"the tokenizer of {name} has no chat template: take an instruction-tuned model")
    try:
        generation = GenerationConfig.from_pretrained(folder)
    except OSError:  # no generation_config.json
        generation = GenerationConfig(eos_token_id=tokenizer.eos_token_id)
    return Bundle(model, load_config(folder), tokenizer, generation)


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
