"""What an update of supervised fine-tuning costs: ours against the SFTTrainer of Hugging Face's TRL.

    python -m venv trl && trl/bin/pip install trl                   # an environment of its own; torch as in ours
    python benchmarks/sft_step.py --trl_python trl/bin/python [--models tiny 30m] [--rounds 5] [--threads 2]

512 trajectories of the scripted teacher, as tokens and a mask of what the model wrote; random weights, fp32, fused
AdamW with the same settings. Compared are tokens of documents per second, padding not counted. Ours is the loop of
sft.py with its defaults: 32 trajectories an update. TRL is measured in four ways:

    packed               its packing: rows of up to 512 tokens, as many an update as hold 32 trajectories, in one pass
    packed, row by row   the same rows, each in a pass of its own, gradients accumulated
    padded               the 32 trajectories of ours, padded to the longest, in one pass
    padded, by length    32 trajectories of like length, padded: hardly any padding, but these are other batches, here
                         mostly of one task each

TRL joins the rows of a pass into one, and tells documents apart by their positions. Without flash-attention (that is,
on a CPU; flex attention has no backward pass there) transformers turns these into a mask over all pairs of tokens:
documents do not see each other, but attention is computed between all of them, which is why row by row is cheaper.

Processes take turns, update by update, so that a busy machine hurts all alike; the first update of each warms up.
Before, all are given the same 32 trajectories, and must find the same loss and the same norm of its gradient.
"""

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from peers import Worker, asked_again, make_model, parse_flags, peak, take_turns, tell

TRAJECTORIES, BATCH, ROW = 512, 32, 512
OPTIMIZER = {"learning_rate": 1e-4, "weight_decay": 0.01, "max_grad_norm": 1.0}
WAYS = ("packed", "packed, row by row", "padded", "padded, by length")


def write_documents(folder: Path) -> None:
    """Tokens and mask of every trajectory, in an order drawn once."""
    import scripted
    from checkpoint import load_bundle
    from executor import Executor
    from rollout import choose_style, encode_trajectory
    from sft import SFTArguments
    from tasks import resolve

    bundle, settings = load_bundle(str(folder)), SFTArguments(model=str(folder))
    form = (choose_style(settings.prompt_style, bundle), bundle.end_id, settings.max_observation_tokens)
    with Executor() as executor:
        written = scripted.compose(resolve(settings.tasks), TRAJECTORIES, settings.seed, executor)
    encoded = [encode_trajectory(bundle.tokenizer, trajectory["segments"], *form) for trajectory in written]
    documents = [{"input_ids": t.tolist(), "assistant_masks": s.int().tolist()} for t, s in encoded if len(t) <= ROW]
    random.Random(settings.seed).shuffle(documents)
    (folder / "documents.json").write_text(json.dumps(documents))


def read_documents(folder: str) -> list[dict[str, list[int]]]:
    return json.loads((Path(folder) / "documents.json").read_text())


def norm_of_gradient(model: torch.nn.Module) -> float:
    """Clears the gradient too."""
    norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in model.parameters()])
    model.zero_grad(set_to_none=True)
    return float(norm)


def ours(folder: str) -> None:
    from sft import SFTArguments
    from training import Policy, backward, start_processes

    state, settings = start_processes(), SFTArguments(model=folder, batch_size=BATCH, **OPTIMIZER)
    policy = Policy(folder, settings.learning_rate, settings.weight_decay)
    documents = [
        (torch.tensor(d["input_ids"]), torch.tensor(d["assistant_masks"]) == 1) for d in read_documents(folder)
    ]
    denominator = BATCH * sum(int(sampled.sum()) for _, sampled in documents) / len(documents)

    def gradient(batch: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[float, int]:
        """The sum of the negative log-likelihood, and over how many tokens."""
        nll = torch.zeros((), device=state.device)

        def loss(_, owner, log_probs, entropy):
            nll.sub_(log_probs.detach().sum())
            return -log_probs.sum() / denominator

        backward(policy.model, batch, loss, settings.micro_batch_tokens)
        return float(nll), sum(int(sampled.sum()) for _, sampled in batch)

    loaded, at = peak(), 0
    asked_again()
    nll, count = gradient(documents[:BATCH])
    tell(loss=nll / count, norm=norm_of_gradient(policy.model) * denominator / count, loaded=loaded)
    while asked_again():
        started, cpu = time.perf_counter(), time.process_time()
        batch = documents[at : at + BATCH]
        nll, count = gradient(batch)
        policy.step(settings.learning_rate, settings.max_grad_norm)
        figures = {"seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu, "loss": nll / count}
        tell(tokens=sum(len(tokens) for tokens, _ in batch), **figures)
        at = (at + BATCH) % (len(documents) - BATCH + 1)


def trl(folder: str, way: str) -> None:
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    documents = read_documents(folder)
    rows = round(BATCH * sum(len(document["input_ids"]) for document in documents) / len(documents) / ROW)
    more = {
        "packed": {"packing": True, "per_device_train_batch_size": rows},
        "packed, row by row": {
            "packing": True, "per_device_train_batch_size": 1, "gradient_accumulation_steps": rows
        },
        "padded": {"per_device_train_batch_size": BATCH, "train_sampling_strategy": "sequential"},
        "padded, by length": {"per_device_train_batch_size": BATCH, "train_sampling_strategy": "group_by_length"},
    }[way]  # fmt: skip

    class Paced(TrainerCallback):
        """An update is all that happens between the ends of two."""

        def on_train_begin(self, *_, **__):
            if not asked_again():
                os._exit(0)
            self.tokens, self.loss = 0, 0.0
            self.started, self.cpu = time.perf_counter(), time.process_time()

        def on_step_end(self, *_, **__):
            seconds, cpu = time.perf_counter() - self.started, time.process_time() - self.cpu
            tell(seconds=seconds, cpu=cpu, tokens=self.tokens, loss=self.loss)
            self.on_train_begin()

    class Watched(SFTTrainer):
        def training_step(self, model, inputs, *arguments):
            # There is no mask where there is no padding.
            paced.tokens += int(
                inputs["attention_mask"].sum() if "attention_mask" in inputs else inputs["labels"].numel()
            )
            loss = super().training_step(model, inputs, *arguments)
            paced.loss += float(loss)
            return loss

    paced = Paced()
    settings = SFTConfig(
        output_dir=str(Path(folder) / way), max_steps=10_000, max_length=ROW, dataloader_drop_last=True, use_cpu=True,
        bf16=False, gradient_checkpointing=False, optim="adamw_torch_fused", adam_beta2=0.95,
        lr_scheduler_type="constant", report_to="none", save_strategy="no", disable_tqdm=True, log_level="error",
        model_init_kwargs={"dtype": "float32"}, **OPTIMIZER, **more,
    )  # fmt: skip
    trainer = Watched(
        model=folder,
        args=settings,
        processing_class=AutoTokenizer.from_pretrained(folder),
        train_dataset=Dataset.from_list(documents),
        eval_dataset=Dataset.from_list(documents[:BATCH]),  # is prepared and packed in the same way
        callbacks=[paced],
    )
    loaded, same, size = peak(), list(trainer.eval_dataset), settings.per_device_train_batch_size
    count, loss = torch.tensor(sum(label != -100 for row in same for label in row["labels"])), 0.0
    asked_again()
    for start in range(0, len(same), size):
        inputs = trainer.data_collator(same[start : start + size])
        part = trainer.compute_loss(trainer.model, inputs, num_items_in_batch=count)
        part.backward()
        loss += float(part)
    tell(loss=loss, norm=norm_of_gradient(trainer.model), loaded=loaded)
    trainer.train()


def main() -> None:
    arguments = parse_flags(__doc__)
    if arguments.worker:
        system, *way = arguments.worker
        {"ours": ours, "trl": trl}[system](arguments.folder, *way)
        return
    for name in arguments.models:
        with tempfile.TemporaryDirectory() as folder:
            title = make_model(name, Path(folder))
            write_documents(Path(folder))
            print(f"\n{title}, {arguments.threads} threads, medians of {arguments.rounds} updates (least-most)")
            print(
                f"{'':20} {'ours, tokens/s':>17} {'TRL':>17} {'ours / TRL':>18}  CPU {'peak GB':>14} {'last loss':>18}"
            )
            for way in WAYS:
                print(compare(arguments, folder, way), flush=True)


def compare(arguments: argparse.Namespace, folder: str, way: str) -> str:
    """A row of the table."""
    pair = {"ours": Worker(sys.executable, ["ours"], folder, arguments.threads)}
    pair["trl"] = Worker(arguments.trl_python, ["trl", way], folder, arguments.threads)
    own, other = (worker.step() for worker in pair.values())
    if abs(own["loss"] - other["loss"]) > 1e-4 or abs(own["norm"] - other["norm"]) > 1e-3 * own["norm"]:
        found = "; ".join(f"loss {figures['loss']:.6f}, gradient {figures['norm']:.6f}" for figures in (own, other))
        raise SystemExit(f"{way}: for the same trajectories, this is not what we compute: {found}")
    updates = take_turns(pair, arguments.rounds)
    rates = {name: [update["tokens"] / update["seconds"] for update in of] for name, of in updates.items()}
    of_cpu = {name: [update["tokens"] / update["cpu"] for update in of] for name, of in updates.items()}
    ratios, cpu_ratios = ([a / b for a, b in zip(*found.values(), strict=True)] for found in (rates, of_cpu))
    row = [f"{statistics.median(found):.0f} ({min(found):.0f}-{max(found):.0f})".rjust(17) for found in rates.values()]
    row += [f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})".rjust(18)]
    row += [f"{statistics.median(cpu_ratios):4.2f}".rjust(4)]
    row += [f"{of[-1]['bytes'] / 1e9:{width}.2f}" for of, width in zip(updates.values(), (8, 5), strict=True)]
    row += [f"{of[-1]['loss']:{width}.4f}" for of, width in zip(updates.values(), (10, 7), strict=True)]
    return f"{way:20} " + " ".join(row)


if __name__ == "__main__":
    main()
