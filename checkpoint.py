"""Checkpoints: folders that transformers and vLLM load as they are, written under a temporary name and then renamed."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from model import Decoder, hf_state_dict


@contextlib.contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yields a temporary folder beside `folder` that takes its place, whole, when the block ends without an error.

    A run that is killed, or a disk that fills up, while writing leaves what stood there before.
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


def save_model(model: Decoder, hf_config, folder: Path, tokenizer=None) -> None:
    """Writes config.json, sharded safetensors and, if given, the tokenizer; `AutoModelForCausalLM.from_pretrained`
    reads the folder."""
    from huggingface_hub import save_torch_state_dict

    with atomic_folder(folder) as temporary:
        hf_config.save_pretrained(temporary)
        save_torch_state_dict(hf_state_dict(model), temporary)
        if tokenizer is not None:
            tokenizer.save_pretrained(temporary)
