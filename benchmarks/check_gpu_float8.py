"""Training in float8 beside bfloat16, on one GPU: tokens a second, and the loss curves of a small model.

Part `speed` trains each precision for some steps on the sequences that come with the core, by the command, with full
packs of 1,024 tokens. Part `curves` trains ESM-2 35M on a FASTA file with each and writes a picture of the losses; it
prints the largest difference of the smoothed curves.

    python benchmarks/check_gpu_float8.py speed [--model esm2_3b] [--micro-batch-size 8] [--steps 16]
    python benchmarks/check_gpu_float8.py curves --data uniprot.fasta.gz --picture curves.png [--steps 500]
"""

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from command_runs import LOSS, Runs, median_rate

from bionemo_core.io.plots import BLUE, INK, RED, add_title, new_plot, save_png
from bionemo_core.reporting.loss_curve import smooth

PRECISIONS = {
    "bf16": ("trainer.precision=bf16-mixed",),
    "fp8 tensorwise": ("trainer.precision=fp8-mixed", "trainer.fp8_recipe=tensorwise"),
    "fp8 rowwise": ("trainer.precision=fp8-mixed", "trainer.fp8_recipe=rowwise"),
}
COLOURS = dict(zip(PRECISIONS, (INK, RED, BLUE), strict=True))


def compare_speeds(runs: Runs, model: str, micro_batch_size: int, steps: int) -> None:
    """Print the rate of each precision, and its ratio to bf16's."""
    one = 0.0
    for name, settings in PRECISIONS.items():
        batch = f"batch.micro_batch_size={micro_batch_size}"
        rate = median_rate(runs.first_rows(name.replace(" ", "-"), steps, f"model={model}", batch, *settings))
        one = one or rate
        print(f"{model}, {name}: {rate:,.0f} tokens/s, {rate / one if one else 0:.3f} of bf16", flush=True)


def compare_curves(runs: Runs, data: Path, picture: Path, steps: int) -> bool:
    """Draw the losses; return whether each run has all steps."""
    asked = ("model=esm2_35m", "data=fasta", f"data.path={data}", f"trainer.max_steps={steps}")
    figure, axes = new_plot()
    smoothed = {}
    for name, settings in PRECISIONS.items():
        rows = runs.rows(name.replace(" ", "-"), *asked, *settings)
        losses = [float(row[LOSS]) for row in rows if row.get(LOSS)]
        smoothed[name] = smooth(losses)
        axes.plot(range(1, len(losses) + 1), smoothed[name], color=COLOURS[name], linewidth=1.4, label=name)
        if losses:
            pairs = list(zip(smoothed[name], smoothed["bf16"], strict=False))
            worst = max(abs(a - b) for a, b in pairs)
            end = pairs[-1][0] - pairs[-1][1]
            print(f"{name}: {len(losses)} steps, last loss {smoothed[name][-1]:.4f} nats", flush=True)
            print(f"  largest difference from bf16 {worst:.4f}, at the end {end:+.4f}", flush=True)
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats per token, smoothed)")
    add_title(axes, "ESM-2 35M, bf16 and float8")
    axes.legend(frameon=False)
    save_png(figure, picture)
    return all(len(losses) == steps for losses in smoothed.values())


def main() -> int:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("speed", "curves"))
    parser.add_argument("--model", default="esm2_3b")
    parser.add_argument("--micro-batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--picture", type=Path, default=Path("curves.png"))
    parser.add_argument("--accelerator", choices=("gpu", "cpu"), default="gpu")
    arguments = parser.parse_args()
    with TemporaryDirectory() as home:
        runs = Runs(Path(home), arguments.accelerator, limit_s=600)
        if arguments.part == "speed":
            compare_speeds(runs, arguments.model, arguments.micro_batch_size, arguments.steps or 16)
            return 0
        if arguments.data is None:
            parser.error("the part curves needs --data")
        return int(not compare_curves(runs, arguments.data.resolve(), arguments.picture, arguments.steps or 500))


if __name__ == "__main__":
    sys.exit(main())
