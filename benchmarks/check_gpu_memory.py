"""The expected peak memory of a training step against the measured peak, on one GPU, a process for each case.

Each case trains an ESM-2 with random weights for three steps on full packs of 1,024 random residues. Prints estimate,
measured peak (`torch.cuda.max_memory_allocated`) and their ratio; a case that fails is named, and the others still run.
Exits with status 1 if a ratio is off by more than 20 %. Seconds a case, but 3B takes a minute to initialise.

    python benchmarks/check_gpu_memory.py [--cases 650m-bf16,650m-bf16-full]
"""

import argparse
import subprocess
import sys

TIMEOUT_S = 150
FULL = "trainer.activations_checkpoint_granularity=full"
BLOCK = (FULL, "trainer.activations_checkpoint_method=block", "trainer.activations_checkpoint_num_layers=16")
DROPOUT = ("model.hidden_dropout=0.1",)
BF16, FP32 = "trainer.precision=bf16-mixed", "trainer.precision=32"
CASES: dict[str, tuple[str, ...]] = {
    "8m-bf16": ("model=esm2_8m", BF16, "batch.micro_batch_size=64"),
    "8m-fp32": ("model=esm2_8m", FP32, "batch.micro_batch_size=32"),
    "150m-bf16": ("model=esm2_150m", BF16, "batch.micro_batch_size=32"),
    "150m-fp32-full": ("model=esm2_150m", FP32, "batch.micro_batch_size=16", FULL),
    "150m-bf16-dropout": ("model=esm2_150m", BF16, "batch.micro_batch_size=16", *DROPOUT),
    "650m-bf16": ("model=esm2_650m", BF16, "batch.micro_batch_size=16"),
    "650m-bf16-eager": ("model=esm2_650m", BF16, "batch.micro_batch_size=16", "trainer.compile=false"),
    "650m-bf16-full": ("model=esm2_650m", BF16, "batch.micro_batch_size=32", FULL),
    "650m-bf16-block": ("model=esm2_650m", BF16, "batch.micro_batch_size=16", *BLOCK),
    "650m-bf16-accumulated": (
        "model=esm2_650m", BF16, "batch.micro_batch_size=8", "batch.accumulate_grad_batches=2",
    ),
    "3b-bf16": ("model=esm2_3b", BF16, "batch.micro_batch_size=4"),
    "3b-bf16-full": ("model=esm2_3b", BF16, "batch.micro_batch_size=16", FULL),
}  # fmt: skip


def measure(case: str) -> None:
    """Train one case in this process, and print its estimate and its peak in GiB, tokens/s and the seconds it took."""
    from time import perf_counter

    import torch
    import torch.distributed as dist

    from bionemo_core.builtin import load_registry
    from bionemo_core.cli.overrides import prepare_command_line
    from bionemo_core.config.batch_plan import batch_plan
    from bionemo_core.config.hydra_session import composer
    from bionemo_core.config.recompute_options import Recompute
    from bionemo_core.config.spec import make_spec
    from bionemo_core.config.store import fill_store
    from bionemo_core.machine import GIB
    from bionemo_core.parallel.compiled_layers import compile_layers
    from bionemo_core.parallel.dropout import seed_micro_batch
    from bionemo_core.parallel.groups import start_groups
    from bionemo_core.parallel.recompute import recompute_layers
    from bionemo_core.parallel.sharding import shard
    from bionemo_core.runs.device import choose_device
    from bionemo_core.runs.peak_memory import estimate_peak
    from bionemo_core.training.losses import run_pass

    started = perf_counter()
    registry = load_registry()
    fill_store(registry)
    with composer() as compose:
        spec = make_spec(
            compose(prepare_command_line([*CASES[case], "trainer.accelerator=gpu"], registry).arguments), registry
        )
    device, plan = choose_device(spec), batch_plan(spec)
    dist.init_process_group("cpu:gloo,cuda:nccl", store=dist.HashStore(), rank=0, world_size=1)
    torch.nn.init.normal_ = lambda tensor, *_, **__: tensor.data.uniform_(-0.03, 0.03)  # quicker on a CPU
    tokenizer = registry.build(spec.tokenizer, context=device.context(spec))
    network = registry.build(spec.model, tokenizer=tokenizer, context=device.context(spec)).network.to("cuda").train()
    compiled = spec.trainer.compile is not False
    recompute_layers(network, Recompute.of(spec.trainer), compiled=compiled)
    if compiled:
        compile_layers(network)
    shard(network, start_groups(), device.dtype, torch.device("cuda"))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    batch = full_packs(plan.micro_batch_size, tokenizer.pad_id)
    for step in range(3):
        if step == 1:
            torch.cuda.reset_peak_memory_stats()  # the first step compiles, and makes the state of Adam
        torch.cuda.synchronize()
        begun = perf_counter()
        optimizer.zero_grad(set_to_none=True)
        for index in range(plan.accumulate_grad_batches):
            seed_micro_batch(7, step, 0, index)
            run_pass(network, batch, 1 / batch.num_loss_tokens, 0.0)
        optimizer.step()
        torch.cuda.synchronize()
    tokens = plan.accumulate_grad_batches * batch.num_tokens / (perf_counter() - begun)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    peak = estimate_peak(spec, plan, device, parameters, network.vocab_size, rotary=True)
    assert peak is not None
    got = torch.cuda.max_memory_allocated() / GIB
    print(f"RESULT {peak.total / GIB:.3f} {got:.3f} {tokens:.0f} {perf_counter() - started:.0f}", flush=True)


def full_packs(rows: int, pad_id: int):
    """Full packs of one sequence each, with 15 % of the tokens in the loss."""
    import numpy as np

    from bionemo_core.data.batches.batch import micro_batch_of
    from bionemo_core.data.batches.rows import RowShape, collate
    from bionemo_core.protocols import Example

    draw = np.random.default_rng(0)
    ids = [draw.integers(5, 24, 1024).astype(np.int32) for _ in range(rows)]
    examples = [Example(one, one, draw.random(1024) < 0.15) for one in ids]
    return micro_batch_of(collate(examples, rows, RowShape(1024, rows, pad_id, static_shapes=True))).to("cuda")


def main() -> int:
    """Run every case in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure)
        return 0
    print(f"{'case':>22} {'estimate':>9} {'measured':>9} {'ratio':>6} {'tokens/s':>9} {'seconds':>8}, GiB", flush=True)
    off = 0
    for case in arguments.cases.split(","):
        command = [sys.executable, __file__, "--measure", case]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            print(f"{case:>22} took more than {TIMEOUT_S} s", flush=True)
            off += 1
            continue
        result = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        if not result:
            said = [line for line in done.stderr.splitlines() if "Error" in line] or done.stderr.split("\n")
            print(f"{case:>22} failed with status {done.returncode}: {said[-1][:300]}", flush=True)
            off += 1
            continue
        estimate, measured, tokens, seconds = map(float, result[0])
        ratio = estimate / measured
        off += not 0.8 <= ratio <= 1.2
        print(f"{case:>22} {estimate:9.2f} {measured:9.2f} {ratio:6.2f} {tokens:9,.0f} {seconds:8.0f}", flush=True)
    print("every estimate is within 20 %" if not off else f"{off} cases failed or are off by more than 20 %")
    return int(off > 0)


if __name__ == "__main__":
    sys.exit(main())
