"""Training on all GPUs of a machine against one of them: rate per GPU, memory, losses, checkpoints, model by model.

Everything is run by the command, as a user's run, on the sequences that come with the core, in packs of 1,024 tokens. A
row is printed as soon as its run has ended, so that what is there counts if the time is up. Rates are medians of the
second half of the steps: tokens of sequences, without padding, in a second. The peak of memory is that of the rank with
the highest, from the second step on; the estimate is the plan's. Cases:

- data: ESM-2 650M, data parallel on 1, 2, 4 ... GPUs, 16 packs each;
- losses: the same with the same global batch on each number of GPUs, against one;
- layouts: ESM-2 3B on all GPUs, data parallel, tensor 2 x data, pipeline 2 x data, against one;
- largest: ESM-2 15B on all GPUs, weights sharded, all layers recomputed, bf16 and float8;
- resume: ESM-2 8M, float32: saved on all GPUs, continued on two and on one, against the run that went on.

Exits with status 1 if a run failed or its losses differ by more than 1e-4 of themselves in float32, 1e-2 in bfloat16.
`--tiny` shows that the script works: two processes on a CPU, models of two layers, three steps.

    python benchmarks/scaling.py [--cases data,losses] [--steps 16] [--devices 4] [--limit-s 240] [--tiny]
"""

import argparse
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from command_runs import TOLERANCE, Rows, Runs, difference, median_rate

PEAKS = "BIONEMO_SCALING_PEAKS"
"""The variable with the folder in which the ranks of a run write their peaks of memory."""

ON_DEVICE = "BIONEMO_SCALING_ON_DEVICE"
"""The variable by which weights are made on the GPU: of the largest model, eight on a CPU take all memory and long."""

BF16, FP8, FP32 = (f"trainer.precision={name}" for name in ("bf16-mixed", "fp8-mixed", "32-true"))
TINY = ("model.num_layers=2", "model.hidden_size=32", "model.num_attention_heads=2", "batch.seq_length=64")
COLUMNS = ("case", "GPUs", "tokens/s", "per GPU", "of one", "peak GiB", "estimate", "largest difference")
_ESTIMATE = re.compile(r"^ +memory +about ([\d.,]+) (MiB|GiB)", re.MULTILINE)


@dataclass(frozen=True)
class Machine:
    """What the runs may use."""

    runs: Runs
    devices: int
    steps: int
    tiny: bool

    def settings(self, model: str, packs: int, global_packs: int, precision: str = BF16) -> tuple[str, ...]:
        """The settings of a run; of a tiny model with `--tiny`."""
        if self.tiny:
            model, packs, global_packs, precision = "esm2_8m", 1, max(1, global_packs // packs), FP32
        batch = f"batch.micro_batch_size={packs}", f"batch.global_batch_size={global_packs}"
        return f"model={model}", precision, *batch, *(TINY if self.tiny else ())

    def sizes(self) -> list[int]:
        """The numbers of GPUs: 1, 2, 4 ... all."""
        return [size for size in (1, 2, 4, 8, 16) if size < self.devices] + [self.devices]


class Row(NamedTuple):
    """A row of the table; what was not measured is 0."""

    case: str
    gpus: int
    rate: float = 0.0
    alone: float = 0.0
    peak: float = 0.0
    estimate: float = 0.0
    difference: float | None = None
    tolerance: float = TOLERANCE["bf16-mixed"]

    @property
    def good(self) -> bool:
        """Whether the run has measured something, and its losses are those of one GPU."""
        return (self.rate > 0 or self.difference is not None) and (self.difference or 0.0) <= self.tolerance

    def text(self) -> str:
        """The row in Markdown."""
        each = self.rate / self.gpus
        cells = [
            *(self.case, str(self.gpus)),
            *(f"{self.rate:,.0f}" if self.rate else "-", f"{each:,.0f}" if self.rate else "-"),
            *(f"{each / self.alone:.3f}" if self.alone and self.rate else "-",),
            *(f"{value:.2f}" if value else "-" for value in (self.peak, self.estimate)),
            "-" if self.difference is None else f"{self.difference:.1e}",
        ]
        return f"| {' | '.join(cells)} |"


def measure(machine: Machine, case: str, gpus: int, alone: float, *settings: str) -> Row:
    """Run the first steps of a layout."""
    name = re.sub(r"\W+", "-", f"{case}-{gpus}")
    folder = machine.runs.home / f"{name}.peaks"
    folder.mkdir()
    os.environ[PEAKS] = str(folder)
    rows = machine.runs.first_rows(name, machine.steps, *settings, f"trainer.devices={gpus}")
    peaks = [float(path.read_text()) for path in folder.iterdir()]
    found = _ESTIMATE.search(machine.runs.output(name))
    unit = {"MiB": 1 / 1024, "GiB": 1.0}
    estimate = float(found[1].replace(",", "")) * unit[found[2]] if found else 0.0
    return Row(case, gpus, median_rate(rows), alone, max(peaks, default=0.0), estimate)


def data(machine: Machine) -> Iterator[Row]:
    """ESM-2 650M, as many packs on each GPU."""
    alone = 0.0
    for gpus in machine.sizes():
        row = measure(machine, "650M, data", gpus, alone, *machine.settings("esm2_650m", 16, 16 * gpus))
        alone = alone or row.rate
        yield row._replace(alone=alone)


def losses(machine: Machine) -> Iterator[Row]:
    """ESM-2 650M, the same global batches on any number of GPUs."""
    reference: Rows = []
    for gpus in machine.sizes():
        settings = machine.settings("esm2_650m", 16, 16 * machine.devices)
        rows = machine.runs.first_rows(f"losses-{gpus}", machine.steps, *settings, f"trainer.devices={gpus}")
        reference = reference or rows
        pairs = rows[: machine.steps], reference[: machine.steps]
        yield Row("650M, same global batch", gpus, median_rate(rows), difference=difference(*pairs))


def layouts(machine: Machine) -> Iterator[Row]:
    """ESM-2 3B, on one GPU and in each layout of all."""
    devices, packs = machine.devices, 4
    one = measure(machine, "3B, one GPU", 1, 0.0, *machine.settings("esm2_3b", packs, 8 * packs))
    yield one
    split = {"data": ()}
    if devices % 2 == 0:
        size = devices // 2
        split |= {
            f"tensor 2 x data {size}": ("parallel.tensor_model_parallel_size=2", "parallel.sequence_parallel=true"),
            f"pipeline 2 x data {size}": ("parallel.pipeline_model_parallel_size=2",),
        }
    for name, keys in split.items():
        settings = machine.settings("esm2_3b", packs, 8 * packs * devices)
        yield measure(machine, f"3B, {name}", devices, one.rate, *settings, *keys)


def largest(machine: Machine) -> Iterator[Row]:
    """ESM-2 15B, or what the memory admits of it: a run that cannot fit says what it needs."""
    keys = ("parallel.sharding_strategy=full", "trainer.activations_checkpoint_granularity=full")
    os.environ[ON_DEVICE] = "1"
    try:
        for name, precision in (("bf16", BF16), ("fp8", FP8)) if not machine.tiny else (("fp32", FP32),):
            settings = machine.settings("esm2_15b", 8, 8 * machine.devices, precision)
            yield measure(machine, f"15B, {name}", machine.devices, 0.0, *settings, *keys)
    finally:
        del os.environ[ON_DEVICE]


def resume(machine: Machine) -> Iterator[Row]:
    """Save on all GPUs, and go on with two and with one."""
    all_gpus, half = f"trainer.devices={machine.devices}", max(1, machine.steps // 2)
    settings = machine.settings("esm2_8m", 2, 2 * machine.devices, FP32)
    end = f"trainer.max_steps={machine.steps}"
    reference = machine.runs.rows("resume", *settings, all_gpus, end)
    for gpus in sorted({min(2, machine.devices), 1}, reverse=True):
        name = f"resume-{gpus}"
        machine.runs.rows(name, *settings, all_gpus, f"trainer.max_steps={half}")
        rows = machine.runs.rows(name, *settings, f"trainer.devices={gpus}", end, "resume=last")
        found = difference(rows, reference)
        case = f"8M, saved on {machine.devices}, continued"
        yield Row(case, gpus, median_rate(rows), difference=found, tolerance=TOLERANCE["32-true"])


CASES = {"data": data, "losses": losses, "layouts": layouts, "largest": largest, "resume": resume}


def print_table(machine: Machine, cases: list[str]) -> bool:
    """Print the rows of the cases as they come; return whether all are good."""
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    good = True
    for case in cases:
        for row in CASES[case](machine):
            print(row.text(), flush=True)
            good &= row.good
    return good


def run_command(arguments: list[str]) -> int:
    """Run the command in this process, as every rank does, and write the peak of this rank's memory after each step."""
    import torch

    from bionemo_core import cli
    from bionemo_core.machine import GIB
    from bionemo_core.plugins.registry import Registry
    from bionemo_core.training.callbacks import LogMetrics

    real_step, real_build = LogMetrics.after_step, Registry.build

    def after_step(self: Any, trainer: Any, module: Any) -> None:
        real_step(self, trainer, module)
        if torch.cuda.is_available() and PEAKS in os.environ:
            peak = torch.cuda.max_memory_allocated() / GIB
            Path(os.environ[PEAKS], str(trainer.global_rank)).write_text(str(peak))
            if trainer.global_step == 1:  # it compiles, and makes the state of the optimizer
                torch.cuda.reset_peak_memory_stats()

    def build(self: Any, choice: Any, **arguments: Any) -> Any:
        if choice.group != "model" or not torch.cuda.is_available() or ON_DEVICE not in os.environ:
            return real_build(self, choice, **arguments)
        with torch.device("cuda", torch.cuda.current_device()):
            return real_build(self, choice, **arguments)

    LogMetrics.after_step, Registry.build = after_step, build  # type: ignore[method-assign]
    return cli.main(arguments)


def cards(devices: int, tiny: bool) -> str:
    """The names of the cards."""
    if tiny:
        return f"{devices} processes on a CPU, models of two layers: no rates of anything"
    from bionemo_core.machine import gpu_names

    return f"{devices} of: {'; '.join(gpu_names())}"


def main(arguments: list[str], runs_class: type[Runs] = Runs) -> int:
    """Print the cards and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--steps", type=int)
    parser.add_argument("--devices", type=int, help="GPUs; default: all of this machine")
    parser.add_argument("--limit-s", type=float, default=240, help="seconds that a run may take")
    parser.add_argument("--tiny", action="store_true", help="two processes on a CPU, and tiny models")
    given = parser.parse_args(arguments)
    from bionemo_core.machine import num_gpus

    devices = given.devices or (2 if given.tiny else num_gpus())
    if not devices:
        raise SystemExit("This measures GPUs, and torch finds none here; --tiny only shows that it works.")
    wanted = given.cases.split(",")
    if unknown := [case for case in wanted if case not in CASES]:
        parser.error(f"--cases: no such case: {', '.join(unknown)}. There are {', '.join(CASES)}.")
    print(cards(devices, given.tiny), flush=True)
    with TemporaryDirectory() as home:
        command = (sys.executable, str(Path(__file__).resolve()), "--run")
        runs = runs_class(Path(home), "cpu" if given.tiny else "gpu", given.limit_s, command)
        good = print_table(Machine(runs, devices, given.steps or (3 if given.tiny else 16), given.tiny), wanted)
    print("all good" if good else "A RUN FAILED OR ITS LOSSES DIFFER")
    return int(not good)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:  # Lightning starts the other ranks by the same command line
        sys.exit(run_command(sys.argv[2:]))
    sys.exit(main(sys.argv[1:]))
