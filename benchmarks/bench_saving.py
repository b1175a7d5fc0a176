"""How long a save stops the training: at once, and in the background (`checkpoint.async_save`), in one run.

A model of the size of ESM-2 35M is trained on the proteins that ship with the core, and saved every few steps. Counted
is the time between two steps that the save takes: all of it, or the copy of the state in host memory. The first save in
the background also gets the memory for the copy, so it is printed apart.

    python benchmarks/bench_saving.py [--model esm2_35m] [--saves 4] [--every 3] [--threads 2]
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from bionemo_core import cli
from bionemo_core.training.callbacks import CheckpointSaver


def run(arguments: argparse.Namespace, in_background: bool) -> tuple[list[float], float, int]:
    """Seconds that each save between two steps stopped the training, seconds of the whole run, bytes of a save."""
    stopped: list[float] = []
    real = CheckpointSaver.save

    def save(self, trainer, *, wait=False):
        started, new = time.perf_counter(), trainer.global_step != self.last_saved
        real(self, trainer, wait=wait)
        if new and not wait:
            stopped.append(time.perf_counter() - started)

    steps = arguments.saves * arguments.every + 1
    settings = [
        *(f"model={arguments.model}", "name=saving", f"trainer.max_steps={steps}"),
        *(f"trainer.val_check_interval={steps}", "trainer.limit_val_batches=1", "trainer.progress_bar=false"),
        *("batch.micro_batch_size=1", "batch.seq_length=128", "batch.num_workers=0", "scheduler.warmup_steps=2"),
        *(f"trainer.num_threads={arguments.threads}", f"checkpoint.async_save={in_background}"),
        f"checkpoint.every_n_steps={arguments.every}",
    ]
    CheckpointSaver.save = save
    try:
        started = time.perf_counter()
        if cli.main(settings) != 0:
            raise SystemExit("the run failed")
        whole = time.perf_counter() - started
    finally:
        CheckpointSaver.save = real
    newest = sorted(Path(os.environ["BIONEMO_HOME"]).glob("runs/saving/*/checkpoints/step-*"))[-1]
    return stopped, whole, sum(path.stat().st_size for path in newest.iterdir())


def main() -> None:
    """Train twice and print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="esm2_35m")
    parser.add_argument("--saves", type=int, default=4)
    parser.add_argument("--every", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["BIONEMO_HOME"] = home
        rows = {name: run(arguments, name == "in the background") for name in ("at once", "in the background")}
    print(f"\n{arguments.model}: training stops for each save, in milliseconds")
    for name, (stopped, whole, size) in rows.items():
        later = statistics.median(stopped[1:] or stopped) * 1e3
        print(
            f"  {name:<18} first {stopped[0] * 1e3:7.0f}, later (median of {max(1, len(stopped) - 1)}) {later:7.0f}; "
            f"{size / 1e6:,.0f} MB a save, run {whole:.1f} s"
        )


if __name__ == "__main__":
    main()
