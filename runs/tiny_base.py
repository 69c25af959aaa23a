"""Makes the embedded tiny base model: data -> tokenizer -> training from random weights -> `assets/tiny`.

    python runs/tiny_base.py --out assets/tiny

One process, one thread, no downloads; deterministic on one machine for one seed and one Python version. The model has
Qwen2's architecture with 0.82M parameters. It is trained on generic text only (see `tiny_data.py`) and can then do one
thing well: write a short Python program that binds a literal of the question verbatim, and repeat what the program
printed. It knows no task and writes no answer marks; supervised fine-tuning teaches it those in minutes.

Copying is what small models lack and what everything else here hangs on. Three choices bring it about:

    * a first stage of drills over nested vocabularies (`CopyMaker.drill`), in which copying is found, then longer copy
      documents, then mostly transcripts;
    * embeddings of scale 0.5 under a final norm of scale 0.1, so that the token at a row is loud in the residual stream
      from the first step while the logits start small;
    * learning rates in proportion to these scales.
"""

import argparse
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from tqdm import tqdm
from transformers import GenerationConfig, Qwen2Config, Qwen2Tokenizer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tiny_data import CopyMaker, library_prose, make_transcript, sentences

from checkpoint import Bundle, save_bundle
from model import Decoder, ModelConfig, PackedAttention, packed_positions

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# Ordinary tokens, but set apart before the text is cut into pieces, so that they never grow together with neighbours.
MARKS = ["```", "<<<", ">>>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# --------------------------------------------------------------------------------------------------------------------
# tokenizer


def train_tokenizer(vocab_size: int, seed: int) -> Qwen2Tokenizer:
    """Byte-level BPE on the library's prose and generic transcripts."""
    rng = Random(seed)
    transcripts = ["".join(s.text for s in make_transcript(rng).segments) for _ in range(12000)]
    corpus = [*library_prose(), *sentences(), *transcripts]

    # transformers gives every model of this architecture Qwen2's own pipeline (NFC, its regular expression, bytes), so
    # the merges are learned behind the same one.
    pipeline = Qwen2Tokenizer().backend_tokenizer
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = pipeline.normalizer
    split = pre_tokenizers.Split(Regex("|".join(MARKS)), "isolated")
    bpe.pre_tokenizer = pre_tokenizers.Sequence([split, pipeline.pre_tokenizer])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=SPECIAL + MARKS,
        show_progress=False,
    )
    bpe.train_from_iterator(corpus, trainer)
    model = json.loads(bpe.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=[tuple(merge) for merge in model["merges"]],
        unk_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=["<|im_start|>"],
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
        model_max_length=2048,
    )
    tokenizer.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in MARKS])
    return tokenizer


# --------------------------------------------------------------------------------------------------------------------
# documents


class Document:
    """Tokens, and which of them have a loss. `copied` lists token ranges that a good copier gets right."""

    __slots__ = ("copied", "kind", "loss", "tokens")

    def __init__(self, kind: str, tokens: list[int], loss: list[bool], copied: list[tuple[str, int, int]]):
        self.kind, self.tokens, self.loss, self.copied = kind, tokens, loss, copied


class Documents:
    """Endless documents of both sorts, drawn from one generator of random numbers."""

    def __init__(self, tokenizer: Qwen2Tokenizer, rng: Random, longest: int = 320):
        self.encode = tokenizer.backend_tokenizer.encode
        self.end = tokenizer.eos_token_id
        self.longest = longest
        prose = [self.encode(" " + sentence).ids for sentence in sentences()]
        usable = list(range(len(SPECIAL + MARKS), len(tokenizer)))
        self.copies = CopyMaker(prose, usable, rng)

    def copy(self, rng: Random, longest: int) -> Document:
        return Document("copy", *self.copies.document(rng, longest), [])

    def transcript(self, rng: Random, kind: str | None = None) -> Document:
        """Each segment is tokenised by itself, as in training and generation."""
        while True:
            made = make_transcript(rng, kind)
            tokens: list[int] = []
            loss: list[bool] = []
            copied = []
            for segment in made.segments:
                text = segment.text
                if segment.source == "prompt":
                    text = f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
                encoded = self.encode(text)
                for start, end in segment.copied:
                    inside = [i for i, (a, b) in enumerate(encoded.offsets) if b > start and a < end]
                    if inside:
                        what = "output" if segment is made.segments[-1] else "literal"
                        copied.append((what, len(tokens) + inside[0], len(tokens) + inside[-1] + 1))
                tokens += encoded.ids
                loss += [segment.source == "model"] * len(encoded.ids)
            if len(tokens) < self.longest:
                return Document(made.kind, [*tokens, self.end], [*loss, True], copied)


def pack(documents: list[Document]) -> tuple[Tensor, Tensor, PackedAttention, Tensor, Tensor]:
    """tokens, positions, attention, the rows whose next token has a loss, and those next tokens"""
    lengths = [len(document.tokens) for document in documents]
    tokens = torch.tensor([token for document in documents for token in document.tokens])
    loss = torch.tensor([flag for document in documents for flag in document.loss])
    rows = loss.nonzero()[:, 0] - 1  # no document begins with a loss
    return tokens, packed_positions(lengths), PackedAttention(lengths, bucket=16), rows, tokens[rows + 1]


# --------------------------------------------------------------------------------------------------------------------
# model and optimizer


def make_optimizer(model: Decoder, lr: float) -> torch.optim.Optimizer:
    """AdamW, whose steps know no scale: the embedding and the last norm have rates in proportion to their own."""
    rates = {"embed_tokens.weight": lr * 10, "norm.weight": lr / 10}
    groups = [{"params": [p], "lr": rates.get(name, lr)} for name, p in model.named_parameters()]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0)


def make_model(config: ModelConfig, seed: int) -> Decoder:
    """Independent normal weights, at the scales named above."""
    torch.manual_seed(seed)
    model = Decoder(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif name.startswith("embed_tokens"):
            nn.init.normal_(parameter, std=0.5)
        elif parameter.ndim == 2:
            output = name.endswith(("o_proj.weight", "down_proj.weight"))
            nn.init.normal_(parameter, std=(0.5 if output else 1.0) * config.hidden_size**-0.5)
    nn.init.constant_(model.norm.weight, 0.1)
    return model


# --------------------------------------------------------------------------------------------------------------------
# training


@torch.no_grad()
def measure(model: Decoder, documents: list[Document], per_batch: int = 16) -> dict[str, float]:
    """Teacher-forced accuracy of single tokens, and the share of literals and outputs whose every token is the most
    likely one: what greedy decoding would copy without a slip once it has begun."""
    right, total = defaultdict(int), defaultdict(int)
    for i in range(0, len(documents), per_batch):
        batch = documents[i : i + per_batch]
        tokens, positions, attend, _, _ = pack(batch)
        guess = model(tokens, positions, attend, head=lambda hidden, weight: (hidden @ weight.T).argmax(-1))
        hit = torch.cat([torch.tensor([False]), guess[:-1] == tokens[1:]]).tolist()
        start = 0
        for document in batch:
            sort = "copy tokens" if document.kind == "copy" else "tokens"
            for at, flag in enumerate(document.loss, start):
                if flag:
                    total[sort] += 1
                    right[sort] += hit[at]
            for what, a, b in document.copied:
                for key in (what, f"{what} {document.kind}"):
                    total[key] += 1
                    right[key] += all(hit[start + a : start + b])
            start += len(document.tokens)
    return {key: right[key] / total[key] for key in sorted(total)}


def train(model: Decoder, documents: Documents, args: argparse.Namespace, save: Callable[[], None]) -> dict[str, float]:
    rng, held = Random(args.seed), Random(args.seed + 10**6)
    test = [documents.transcript(held) for _ in range(args.test)] + [documents.copy(held, 60) for _ in range(64)]
    optimizer = make_optimizer(model, args.lr)
    bases = [group["lr"] for group in optimizer.param_groups]
    warm_up, seen, mean_loss, last_report = 50, 0, 0.0, time.monotonic()
    for step in tqdm(range(args.steps), mininterval=60, disable=None):
        fraction = step / args.steps
        longest = 0 if fraction < args.copy_stage else 40 if fraction < 2 * args.copy_stage else 90
        share = {0: 0.95, 40: 0.6, 90: args.copy_share}[longest]
        batch, size = [], 0
        while size < args.tokens:
            document = documents.copy(rng, longest) if rng.random() < share else documents.transcript(rng)
            batch.append(document)
            size += len(document.tokens)
        tokens, positions, attend, rows, targets = pack(batch)
        hidden = model(tokens, positions, attend)
        loss = F.cross_entropy(model.logits(hidden[rows]), targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        rate = min(1, (step + 1) / warm_up) * min(1, (1 - fraction) / args.decay)
        for group, base in zip(optimizer.param_groups, bases, strict=True):
            group["lr"] = base * rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seen += size
        mean_loss = loss.item() if step == 0 else 0.98 * mean_loss + 0.02 * loss.item()
        if time.monotonic() - last_report > args.report or step + 1 == args.steps:
            last_report = time.monotonic()
            scores = measure(model, test)
            line = " ".join(f"{key} {value:.3f}" for key, value in scores.items() if " " not in key or "copy" in key)
            save()
            tqdm.write(f"step {step + 1} cpu {time.process_time():.0f} s tokens {seen} loss {mean_loss:.3f} {line}")
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("assets/tiny"), help="folder of the model")
    parser.add_argument("--width", type=int, default=128, help="of the residual stream, a multiple of 64")
    parser.add_argument("--layers", type=int, default=4, help="of the decoder")
    parser.add_argument("--steps", type=int, default=5600, help="optimizer steps")
    parser.add_argument("--tokens", type=int, default=2048, help="tokens in a batch")
    parser.add_argument("--lr", type=float, default=3e-3, help="peak learning rate")
    parser.add_argument("--decay", type=float, default=0.6, help="share of the steps in which the rate falls to 0")
    parser.add_argument("--copy-stage", type=float, default=0.12, help="share of the steps that are nearly all copying")
    parser.add_argument("--copy-share", type=float, default=0.3, help="share of copy documents afterwards")
    parser.add_argument("--test", type=int, default=400, help="held-out transcripts")
    parser.add_argument("--report", type=int, default=60, help="seconds between two lines of figures")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)

    tokenizer = train_tokenizer(1024, args.seed)
    config = Qwen2Config(
        vocab_size=1024,
        hidden_size=args.width,
        intermediate_size=args.width * 5 // 2,
        num_hidden_layers=args.layers,
        num_attention_heads=args.width // 32,
        num_key_value_heads=args.width // 64,
        max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        architectures=["Qwen2ForCausalLM"],
        dtype="float32",
        prompt_style="bare",
    )
    model = make_model(ModelConfig.from_hf(config), args.seed)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {time.process_time():.0f} s", flush=True)
    ends = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    generation = GenerationConfig(eos_token_id=ends, pad_token_id=tokenizer.pad_token_id)
    card = args.out / "README.md"

    def save() -> None:
        text = card.read_text() if card.exists() else None
        save_bundle(Bundle(model, config, tokenizer, generation), args.out)
        if text is not None:  # the folder is replaced as a whole
            card.write_text(text)

    scores = train(model, Documents(tokenizer, Random(args.seed)), args, save)
    for key, value in scores.items():
        print(f"{key:24s} {value:.3f}")
    save()
    print(f"saved {args.out}, {time.process_time():.0f} CPU seconds", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
