"""Two GPUs over NCCL against one: the losses of the same global batches, checkpoints that go between, tokens a second.

Everything is run by the command, as a user's run, on the sequences that come with the core. Part `losses` exits with
status 1 if a loss differs by more than 1e-4 of itself in float32 or 1e-2 in bfloat16, or if other sequences were seen.
Part `speed` times each layout beside one GPU with the same global batch, and prints the rate per GPU as a share of it.

    python benchmarks/check_gpu_ranks.py losses [--steps 20] [--models molmim_xsmall] [--precisions 32-true]
    python benchmarks/check_gpu_ranks.py speed [--steps 24] [--cases data-16,tensor-16]
"""

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from command_runs import TOLERANCE, Rows, Runs, difference, median_rate

ONE, TWO = "trainer.devices=1", "trainer.devices=2"
TENSOR = (TWO, "parallel.tensor_model_parallel_size=2")
SEQUENCE = (*TENSOR, "parallel.sequence_parallel=true")
STAGES = (TWO, "parallel.pipeline_model_parallel_size=2")
SHARDED = (TWO, "parallel.sharding_strategy=full")
RECOMPUTED = (TWO, "trainer.activations_checkpoint_granularity=full")
NO_DROPOUT = ("model.hidden_dropout=0", "model.attention_dropout=0")
LAYOUTS = {"data": (TWO,), "sharded": SHARDED, "tensor": TENSOR}
ENCODER_LAYOUTS = LAYOUTS | {"sequence": SEQUENCE, "pipeline": STAGES, "recomputed": RECOMPUTED}
MODELS = {
    "esm2_8m": ((), ENCODER_LAYOUTS),
    "prott5nv_tiny": (NO_DROPOUT, LAYOUTS),
    "megamolbart_xsmall": ((*NO_DROPOUT, "optim.lr=5e-4"), LAYOUTS),
    "molmim_xsmall": (NO_DROPOUT, LAYOUTS),
}


class Speed(NamedTuple):
    """A layout of two GPUs, and the settings that one GPU has too."""

    layout: tuple[str, ...]
    model: str
    micro_batch_size: int
    global_batch_size: int


SPEEDS = {
    "data-16": Speed((TWO,), "esm2_650m", 16, 32),
    "data-16-sharded": Speed(SHARDED, "esm2_650m", 16, 32),
    "data-32": Speed((TWO,), "esm2_650m", 32, 64),
    "tensor-16": Speed(TENSOR, "esm2_650m", 16, 16),
    "sequence-16": Speed(SEQUENCE, "esm2_650m", 16, 16),
    "pipeline-16": Speed(STAGES, "esm2_650m", 16, 128),
    "sequence-3b": Speed(SEQUENCE, "esm2_3b", 8, 8),
}


def layouts_agree(
    runs: Runs, model: str, precision: str, compiled: bool, steps: int, pool: ThreadPoolExecutor
) -> dict[str, float]:
    """Difference from one GPU of every layout, and of a run of two GPUs that goes on on one."""
    options, layouts = MODELS[model]
    batch = ("batch.micro_batch_size=4", "batch.global_batch_size=8")
    asked = (f"model={model}", *options, f"trainer.precision={precision}", f"trainer.compile={compiled}", *batch)
    end, case = f"trainer.max_steps={steps}", f"{model}-{precision}"

    def goes_on() -> Rows:
        runs.rows(f"{case}-goes-on", *asked, *list(layouts.values())[-1], f"trainer.max_steps={steps // 2}")
        return runs.rows(f"{case}-goes-on", *asked, ONE, end, "resume=last", gpu=1)

    reference = pool.submit(runs.rows, f"{case}-one", *asked, ONE, end, gpu=0)
    going_on = pool.submit(goes_on)
    begun = {pool.submit(runs.rows, f"{case}-{name}", *asked, *layouts[name], end): name for name in layouts}
    begun[going_on] = "two, then one"
    found = {}
    for done in as_completed(begun):
        found[begun[done]] = difference(done.result(), reference.result())
        print(f"{model} {precision}, {begun[done]}: {found[begun[done]]:.1e}", flush=True)
    return found


def time_layouts(runs: Runs, cases: list[str], steps: int) -> None:
    """Print the rate of each layout, and of one GPU with the same batches; the runs of one GPU go side by side."""

    def settings(name: str) -> tuple[str, ...]:
        case = SPEEDS[name]
        batch = f"batch.micro_batch_size={case.micro_batch_size}", f"batch.global_batch_size={case.global_batch_size}"
        return f"model={case.model}", "trainer.precision=bf16-mixed", *batch

    baselines: dict[tuple[str, ...], list[str]] = {}
    for name in cases:
        baselines.setdefault(settings(name), []).append(name)

    def time_one(number: int, asked: tuple[str, ...]) -> float:
        return median_rate(runs.first_rows(f"one-{number}", steps, *asked, ONE, gpu=number % 2))

    with ThreadPoolExecutor(2) as pool:
        one = dict(zip(baselines, pool.map(time_one, range(len(baselines)), baselines), strict=True))
    for asked, rate in one.items():
        print(f"one GPU, {' '.join(asked)}: {rate:,.0f} tokens/s", flush=True)
    for name in cases:
        rows = runs.first_rows(name, steps, *settings(name), *SPEEDS[name].layout)
        rate, alone = median_rate(rows), one[settings(name)]
        share = rate / 2 / alone if alone else 0.0
        print(f"{name}: {rate:,.0f} tokens/s, per GPU {share:.3f} of one", flush=True)


def main() -> int:
    """Print a line for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("losses", "speed"))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--precisions", default=",".join(TOLERANCE))
    parser.add_argument("--cases", default=",".join(SPEEDS))
    parser.add_argument("--accelerator", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--side-by-side", type=int, default=8, help="runs of the part losses at once")
    parser.add_argument("--compile", action="store_true", help="compile and record layers in the part losses too")
    parser.add_argument("--limit-s", type=float, default=240, help="seconds that a run may take")
    arguments = parser.parse_args()
    with TemporaryDirectory() as home:
        runs = Runs(Path(home), arguments.accelerator, arguments.limit_s)
        if arguments.part == "speed":
            time_layouts(runs, arguments.cases.split(","), arguments.steps)
            return 0
        precisions = ["32-true"] if arguments.accelerator == "cpu" else arguments.precisions.split(",")
        cases = [(model, precision) for model in arguments.models.split(",") for precision in precisions]
        agree = True
        with ThreadPoolExecutor(len(cases)) as checks, ThreadPoolExecutor(arguments.side_by_side) as pool:
            begun = {
                checks.submit(layouts_agree, runs, *case, arguments.compile, arguments.steps, pool): case
                for case in cases
            }
            for done in as_completed(begun):
                agree &= max(done.result().values()) < TOLERANCE[begun[done][1]]
    print("all agree" if agree else "LOSSES DIFFER")
    return int(not agree)


if __name__ == "__main__":
    sys.exit(main())
