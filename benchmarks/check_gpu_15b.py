"""ESM-2 15B: embedding on one GPU, and fine-tuning steps with LoRA on two, whose ranks hold half of the weights each.

Random weights, made on the devices; nothing is saved. Prints tokens a second and the peak of memory of a device.

    python benchmarks/check_gpu_15b.py [embed] [lora] [--model 15b] [--sequences 400] [--steps 4] [--devices 2]
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import time

import torch
import torch.distributed as dist
from bench_embedding import proteins
from torch import nn

from bionemo_core.data.batches.batch import TokenBatch
from bionemo_core.data.batches.rows import RowShape, collate
from bionemo_core.data.labelled_records import LabelledRecord
from bionemo_core.finetuning.label_spec import LabelSpec
from bionemo_core.finetuning.lora import LoraSettings, add_adapters
from bionemo_core.finetuning.network import FineTunedNetwork, MlpHead
from bionemo_core.finetuning.objective import LabelObjective
from bionemo_core.inference.embedding import Embedder, EmbeddingSettings
from bionemo_core.parallel.compiled_layers import compile_layers
from bionemo_core.parallel.groups import start_groups
from bionemo_core.parallel.sharding import average_gradients, reshard, shard
from bionemo_core.parallel.sharding_choice import Sharding
from bionemo_core.protocols import BuildContext, InputForm
from bionemo_esm import presets
from bionemo_esm.tokenizer import esm2_tokenizer

SIZES = {"15b": (48, 5120, 40), "3b": (36, 2560, 40), "650m": (33, 1280, 20), "8m": (6, 320, 20)}
GIB = 2**30
DEVICE = torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")


def esm2(size: str):
    """A module without weights."""
    layers, hidden, heads = SIZES[size]
    shape = {"num_layers": layers, "hidden_size": hidden, "num_attention_heads": heads}
    with torch.device("meta"):
        return presets.esm2(**shape, tokenizer=esm2_tokenizer(), context=BuildContext())


@torch.no_grad()
def make_weights(network: nn.Module, size: str) -> None:
    """Make random weights on the device."""
    network.to_empty(device=DEVICE)
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            parameter.normal_(0, 0.02)
        else:
            parameter.fill_(float(name.endswith("weight") and "norm" in name))
    _, hidden, heads = SIZES[size]
    small = {"num_layers": 1, "hidden_size": hidden // heads, "num_attention_heads": 1}
    angles = presets.esm2(**small, tokenizer=esm2_tokenizer(), context=BuildContext()).network.rotary
    for module in network.modules():
        if type(module) is type(angles):
            module.inverse_frequency.copy_(angles.inverse_frequency)


def embed(size: str, count: int) -> None:
    """Embed proteins on one device."""
    module = esm2(size).to(torch.bfloat16).eval()
    make_weights(module.network, size)
    compile_layers(module.network)
    settings = EmbeddingSettings(tokens_per_batch=16_384, static_shapes=True)
    embedder = Embedder(module, esm2_tokenizer(), settings)
    sequences = proteins(count)
    embedder.run(sequences[: count // 4])
    begun = time.perf_counter()
    embedder.run(sequences)
    elapsed = time.perf_counter() - begun
    report(f"ESM-2 {size}, embedding", sum(map(len, sequences)) + 2 * count, elapsed)


def lora_rank(size: str, steps: int, rows: int) -> None:
    """Fine-tune on this rank and the others."""
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if DEVICE.type == "cuda":
        torch.cuda.set_device(rank)
    dist.init_process_group("cpu:gloo,cuda:nccl" if DEVICE.type == "cuda" else "gloo")
    groups = start_groups()
    with torch.device("meta"):
        encoder = esm2(size).network
        add_adapters(encoder, LoraSettings(rank=16))
        head = MlpHead([SIZES[size][1], 128, 1], 0.0, per_residue=False)
        network = FineTunedNetwork(encoder, head, per_residue=False, num_classes=None)
    torch.manual_seed(0)
    make_weights(network, size)
    network.train()
    compile_layers(network)
    precision = torch.bfloat16 if DEVICE.type == "cuda" else torch.float32
    shard(network, groups, precision, DEVICE, Sharding("full" if ranks > 1 else "none", ranks))
    trained = [one for one in network.parameters() if one.requires_grad]
    optimizer, batch, times = torch.optim.AdamW(trained, lr=1e-4), labelled(rows), []
    for _ in range(steps):
        begun = time.perf_counter()
        optimizer.zero_grad()
        loss = network(batch)
        (loss / batch.num_loss_tokens).backward()
        reshard(network)
        average_gradients(network)
        optimizer.step()
        assert torch.isfinite(loss), "the loss is not finite"
        times.append(time.perf_counter() - begun)
    count = sum(one.numel() for one in trained)
    if rank == 0:
        name = f"ESM-2 {size}, LoRA of rank 16, {count / 1e6:.0f}M trained, {ranks} devices, {rows} packs each"
        report(name, ranks * batch.num_tokens, statistics.median(times[1:]))
    dist.destroy_process_group()


def labelled(rows: int) -> TokenBatch:
    """Labelled proteins that fill packs of 1,024 tokens."""
    tokenizer = esm2_tokenizer()
    form = InputForm(bos=True, eos=True)
    objective = LabelObjective(tokenizer, LabelSpec("sequence_regression"), form=form, seq_length=1024)
    records = [LabelledRecord(i, "M" * 510, f"{i % 3}", "") for i in range(2 * rows)]
    examples = [objective.record_example(record) for record in records]
    return TokenBatch.of(collate(examples, rows, RowShape(1024, rows, tokenizer.pad_id))).to(DEVICE)


def report(name: str, tokens: int, seconds: float) -> None:
    """Print a line."""
    memory = f", peak {torch.cuda.max_memory_allocated() / GIB:.1f} GiB" if DEVICE.type == "cuda" else ""
    print(f"{name}: {tokens / seconds:,.0f} tokens/s, {seconds:.2f} s for {tokens:,} tokens{memory}", flush=True)


def lora(size: str, steps: int, rows: int, devices: int) -> None:
    """Start a process for each device."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, __file__, "lora", "--model", size, "--steps", str(steps), "--rows", str(rows)]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(devices)}
    ranks = [subprocess.Popen(command, env={**os.environ, **place, "RANK": str(rank)}) for rank in range(devices)]
    if any([rank.wait() for rank in ranks]):
        raise SystemExit("a rank failed")


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["embed", "lora"])
    parser.add_argument("--model", choices=SIZES, default="15b")
    parser.add_argument("--sequences", type=int, default=400)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--devices", type=int, default=2)
    chosen = parser.parse_args()
    if "RANK" in os.environ:
        lora_rank(chosen.model, chosen.steps, chosen.rows)
        return
    if "embed" in chosen.parts:
        embed(chosen.model, chosen.sequences)
    if "lora" in chosen.parts:
        lora(chosen.model, chosen.steps, chosen.rows, chosen.devices)


if __name__ == "__main__":
    main()
