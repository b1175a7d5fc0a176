"""LoRA against full fine-tuning: time of a step and memory, both sides in one run, alternating; medians.

An ESM-2 encoder with v1's MLP head on 16 packed proteins of UniRef-like lengths, float32. Memory is what training holds
beside weights and activations: gradients and Adam's moments, counted from the tensors themselves. On a GPU the peak of
a step is printed too: what the side holds, and what a step took on top of what both sides hold.

    python benchmarks/bench_finetune.py [--steps 5] [--threads 2] [--model 8m] [--rank 32]
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from bionemo_core.data.batches.batch import TokenBatch
from bionemo_core.data.batches.rows import RowShape, collate
from bionemo_core.data.labelled_records import LabelledRecord
from bionemo_core.finetuning.label_spec import LabelSpec
from bionemo_core.finetuning.lora import LoraSettings, add_adapters
from bionemo_core.finetuning.model.build import freeze
from bionemo_core.finetuning.network import FineTunedNetwork, MlpHead
from bionemo_core.finetuning.objective import LabelObjective
from bionemo_core.protocols import BuildContext, InputForm
from bionemo_esm import presets
from bionemo_esm.tokenizer import esm2_tokenizer

SIZES = {"8m": (6, 320, 20), "35m": (12, 480, 20), "150m": (30, 640, 20), "650m": (33, 1280, 20)}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MIB = 2**20
FORM = InputForm(bos=True, eos=True)


def batch(count: int = 16) -> TokenBatch:
    """Labelled random proteins in one packed row."""
    tokenizer, draw = esm2_tokenizer(), np.random.default_rng(1)
    objective = LabelObjective(tokenizer, LabelSpec("sequence_regression"), form=FORM, seq_length=1024)
    lengths = np.clip(draw.lognormal(5.45, 0.75, size=count), 10, 1022).astype(int)
    rows = ["".join(draw.choice(list("LAGVSERTIDPKQNFYMHWC"), size=length)).encode() for length in lengths]
    examples = [objective.record_example(LabelledRecord(i, row, f"{i % 3}", "")) for i, row in enumerate(rows)]
    shape = RowShape(1024, count, tokenizer.pad_id)
    return TokenBatch.of(collate(examples, count, shape)).to(DEVICE)


class Side:
    """One way to fine-tune."""

    def __init__(self, size: str, rank: int | None) -> None:
        layers, hidden, heads = SIZES[size]
        shape = {"num_layers": layers, "hidden_size": hidden, "num_attention_heads": heads}
        encoder = presets.esm2(**shape, tokenizer=esm2_tokenizer(), context=BuildContext()).network
        if rank is None:
            freeze(encoder, frozen=False, layers=0)
        else:
            add_adapters(encoder, LoraSettings(rank=rank))
        head = MlpHead([hidden, 128, 1], 0.1, per_residue=False)
        self.network = FineTunedNetwork(encoder, head, per_residue=False, num_classes=None).to(DEVICE).train()
        self.trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-4, fused=True)

    def step(self, data: TokenBatch) -> None:
        """One optimizer step."""
        self.optimizer.zero_grad()
        (self.network(data) / data.num_loss_tokens).backward()
        self.optimizer.step()
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    def weights_mib(self) -> float:
        """Weights, trained or not."""
        return sum(p.numel() * p.element_size() for p in self.network.parameters()) / MIB

    def state_mib(self) -> float:
        """Gradients and moments."""
        held = [parameter.grad for parameter in self.trained]
        held += [value for state in self.optimizer.state.values() for value in state.values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in held if tensor is not None) / MIB


def timed(step: Callable[[], None]) -> tuple[float, float]:
    """Seconds, and on a GPU the memory in MiB that the step took on top of what was held before."""
    before = 0
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    started = time.perf_counter()
    step()
    elapsed = time.perf_counter() - started
    return elapsed, (torch.cuda.max_memory_allocated() - before) / MIB if DEVICE == "cuda" else 0.0


def main() -> None:
    """Print both sides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", choices=list(SIZES), default="8m")
    parser.add_argument("--rank", type=int, default=32)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    data = batch()
    sides = {"full": Side(arguments.model, None), f"LoRA {arguments.rank}": Side(arguments.model, arguments.rank)}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    peaks: dict[str, float] = dict.fromkeys(sides, 0.0)
    for index in range(arguments.steps + 1):
        for name, side in sides.items():
            elapsed, peak = timed(lambda side=side: side.step(data))
            if index:
                seconds[name].append(elapsed)
                peaks[name] = max(peaks[name], peak)
    print(
        f"torch {torch.__version__}, ESM-2 {arguments.model} shape, float32, {DEVICE}, {arguments.threads} threads, "
        f"{data.num_sequences} sequences, {data.num_tokens:,} tokens"
    )
    for name, side in sides.items():
        count = sum(parameter.numel() for parameter in side.trained)
        held = side.weights_mib() + side.state_mib()
        peak = f", peak {held + peaks[name]:,.0f} MiB" if DEVICE == "cuda" else ""
        print(
            f"{name:>8}: {statistics.median(seconds[name]) * 1e3:,.0f} ms a step, {count / 1e6:,.2f}M parameters, "
            f"gradients and moments {side.state_mib():,.1f} MiB{peak}"
        )
    full, lora = (statistics.median(values) for values in seconds.values())
    states = [side.state_mib() for side in sides.values()]
    print(f"LoRA / full: time {lora / full:.2f}, gradients and moments {states[1] / states[0]:.3f}")


if __name__ == "__main__":
    main()
