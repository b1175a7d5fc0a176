"""Two GPUs over NCCL against one: the losses of the same global batches, checkpoints that go between, tokens a second.

Everything is run by the command, as a user's run, on the sequences that come with the core. Exits with status 1 if a
loss differs by more than 1e-4 of itself in float32 or 1e-2 in bfloat16, or if other sequences were seen.

    python benchmarks/check_gpu_ranks.py [--steps 20] [--models molmim_xsmall] [--precisions 32-true]
        [--fast esm2_650m] [--accelerator gpu]
"""

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from bionemo_core.reporting.metrics_file import NAME, read_rows

LOSS, SPEED, SEEN = "reduced_train_loss", "tokens_per_second", "consumed_samples"
TOLERANCE = {"32-true": 1e-4, "bf16-mixed": 1e-2}
MODELS = {
    "esm2_8m": (),
    "prott5nv_tiny": ("model.hidden_dropout=0", "model.attention_dropout=0"),
    "megamolbart_xsmall": ("model.hidden_dropout=0", "model.attention_dropout=0", "optim.lr=5e-4"),
    "molmim_xsmall": ("model.hidden_dropout=0", "model.attention_dropout=0"),
}
LAYOUTS = {
    "one": ("trainer.devices=1",),
    "data": ("trainer.devices=2",),
    "tensor": ("trainer.devices=2", "parallel.tensor_model_parallel_size=2"),
}
COMMON = (
    "scheduler=constant",
    "trainer.log_every_n_steps=1",
    "trainer.val_check_interval=100000",
    "trainer.progress_bar=false",
    "batch.num_workers=2",
)

Rows = list[dict[str, str]]


class Runs:
    """Runs of the command in one home."""

    def __init__(self, home: Path, accelerator: str) -> None:
        self.home = home
        self.accelerator = f"trainer.accelerator={accelerator}"

    def rows(self, name: str, *overrides: str) -> Rows:
        """The metrics of a run; its output is shown if it fails, or is refused."""
        command = ["bionemo-run", f"name={name}", self.accelerator, *COMMON, *overrides]
        ran = subprocess.run(
            command, env={**os.environ, "BIONEMO_HOME": str(self.home)}, capture_output=True, text=True
        )
        if ran.returncode:
            print(f"  {name}: status {ran.returncode}\n{(ran.stdout + ran.stderr)[-2000:]}")
            return []
        return read_rows(next((self.home / "runs" / name).iterdir()) / NAME)


def difference(rows: Rows, reference: Rows) -> float:
    """The largest difference of a loss from the reference's, as a share of that; infinite for other sequences."""
    if [row[SEEN] for row in rows] != [row[SEEN] for row in reference] or not rows:
        return float("inf")
    pairs = [(float(row[LOSS]), float(wanted[LOSS])) for row, wanted in zip(rows, reference, strict=True)]
    return max(abs(got - wanted) / abs(wanted) for got, wanted in pairs)


def layouts_agree(runs: Runs, model: str, precision: str, steps: int) -> bool:
    """Every layout against one GPU, and a run of two GPUs that goes on on one."""
    batch = ("batch.micro_batch_size=4", "batch.global_batch_size=8")
    asked = (f"model={model}", *MODELS[model], f"trainer.precision={precision}", "trainer.compile=false", *batch)
    found: dict[str, float] = {}
    reference: Rows = []
    for layout, overrides in LAYOUTS.items():
        rows = runs.rows(f"{model}-{precision}-{layout}", *asked, *overrides, f"trainer.max_steps={steps}")
        reference = reference or rows
        found[layout] = difference(rows, reference)
    name = f"{model}-{precision}-goes-on"
    runs.rows(name, *asked, *LAYOUTS["data"], f"trainer.max_steps={steps // 2}")
    rows = runs.rows(name, *asked, *LAYOUTS["one"], f"trainer.max_steps={steps}", "resume=last")
    found["two, then one"] = difference(rows, reference)
    print(f"{model} {precision}: " + ", ".join(f"{layout} {value:.1e}" for layout, value in found.items()), flush=True)
    return max(found.values()) < TOLERANCE[precision]


def speeds(runs: Runs, model: str, steps: int, precision: str = "bf16-mixed") -> None:
    """Tokens a second of each layout, 8 packs a device and step; the median of the second half of the steps."""
    asked = (f"model={model}", f"trainer.max_steps={steps}", f"trainer.precision={precision}")
    for layout, overrides in LAYOUTS.items():
        rows = runs.rows(f"fast-{layout}", *asked, "batch.micro_batch_size=8", "trainer.compile=true", *overrides)
        found = [float(row[SPEED]) for row in rows[len(rows) // 2 :] if row.get(SPEED)]
        print(f"{model} {precision} {layout}: {statistics.median(found) if found else 0:,.0f} tokens/s", flush=True)


def main() -> None:
    """Print a line a case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--precisions", default=",".join(TOLERANCE))
    parser.add_argument("--fast", help="a model whose tokens a second are wanted as well")
    parser.add_argument("--accelerator", choices=("gpu", "cpu"), default="gpu")
    arguments = parser.parse_args()
    with TemporaryDirectory() as home:
        runs = Runs(Path(home), arguments.accelerator)
        precisions = ["32-true"] if arguments.accelerator == "cpu" else arguments.precisions.split(",")
        cases = [(model, precision) for precision in precisions for model in arguments.models.split(",")]
        agree = [layouts_agree(runs, model, precision, arguments.steps) for model, precision in cases]
        if arguments.fast:
            speeds(runs, arguments.fast, arguments.steps)
    print("all agree" if all(agree) else "LOSSES DIFFER")
    sys.exit(not all(agree))


if __name__ == "__main__":
    main()
