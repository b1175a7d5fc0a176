"""Does pre-training help to predict secondary structure? Q3 of fine-tuned models on the test proteins of FLIP.

Q3 is the share of resolved residues whose state (helix, strand, other) is right, of all test proteins together; its
standard error treats proteins as independent, not residues. A row is a `bionemo-run task=finetune` and a
`task=evaluate`, printed as they are run, with v1's ConvNet as the head:

- one-hot: the head sees which residue stands where, and nothing else;
- random-frozen: states of the same network with random weights;
- frozen, full, lora: the pre-trained model, as `task.encoder` trains it;
- random-full: the same network trained from random weights.

One-hot vectors come from a model that a small plugin offers, so that row is made by the same command as the others. All
rows have the same head, batches, steps, optimizer, schedule and seed, which is checked; only the rate of a trained
encoder is another. Predictions of the test proteins are counted anew here, and compared with what each run measured.

States of another scale want another rate: where several are given, `--lr 5e-4,5e-3`, each row is trained with each of
them, and the one of the best validation accuracy is tested.

    bionemo-run model=esm2_35m ...
    python benchmarks/flip_secondary_structure.py FOLDER_OF_FLIP PRETRAINED_RUN [--gpus 2]

The runs go to $BIONEMO_HOME, or ~/.bionemo; the plugin, what each command printed, and the table to `--out`.
"""

import argparse
import csv
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from flip_rows import (
    BASELINES,
    LONGEST_FIRST,
    ROWS,
    Bench,
    Finished,
    Flip,
    Starts,
    free_devices,
    make_one_hot,
    read_flip,
    together,
)
from learning import mean_and_error

from bionemo_core.builtin import load_registry
from bionemo_core.config.schema import RunSpec
from bionemo_core.config.spec import from_json
from bionemo_core.errors import BioNeMoError
from bionemo_core.protocols import BuildContext
from bionemo_core.reporting.metrics_file import read_rows


class Result(NamedTuple):
    """What came of a row; right and total are counts of residues by protein."""

    spec: RunSpec
    trained: int
    steps: int
    seconds: float
    right: dict[str, int]
    total: dict[str, int]
    validation: float
    measured: float
    """The accuracy on the test split as the run itself had it at its end."""

    @classmethod
    def of(cls, finished: Finished, predictions: Path, flip: Flip) -> "Result":
        """Read it."""
        right, total = count(predictions, flip.resolved)
        spec = from_json((finished.run / "run.json").read_text())
        rows = read_rows(finished.run / "metrics.csv")
        return cls(
            spec=spec,
            trained=trained_parameters(spec),
            steps=max(int(row["step"]) for row in rows if "reduced_train_loss" in row),
            seconds=finished.seconds,
            right=right,
            total=total,
            validation=finished.validation,
            measured=[row["test_accuracy"] for row in rows if "test_accuracy" in row][-1],
        )


def count(predictions: Path, resolved: Mapping[str, np.ndarray]) -> tuple[dict[str, int], dict[str, int]]:
    """Right and all resolved residues of every protein that the model takes whole."""
    right, total = {}, {}
    with predictions.open(newline="") as stream:
        for line in csv.DictReader(stream):
            name, label, predicted = line["id"], line["label"], line["prediction"]
            if len(predicted) != len(label):  # longer than the model
                continue
            same = np.array([first == second for first, second in zip(label, predicted, strict=True)])
            right[name], total[name] = int((same & resolved[name]).sum()), int(resolved[name].sum())
    return right, total


def trained_parameters(spec: RunSpec) -> int:
    """Numbers that this run's training changes."""
    registry, context = load_registry(), BuildContext(seed=spec.seed)
    tokenizer = registry.build(spec.tokenizer, context=context)
    module = registry.build(spec.model, tokenizer=tokenizer, context=context)
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def check_comparable(results: Mapping[str, Result], *, chosen_rates: bool) -> None:
    """Accept rows that differ in their encoder, how it is trained and, where it is trained, the rate; in nothing else.

    Args:
        results: by row.
        chosen_rates: rates of frozen encoders were chosen among the same ones, and may differ too.

    Raises:
        SystemExit: names the first row that differs in more.
    """

    def shared(name: str) -> dict[str, Any]:
        spec = results[name].spec
        rate = spec.optim.params["lr"] if ROWS[name].encoder == "frozen" and not chosen_rates else None
        task = {key: value for key, value in spec.task.params.items() if key not in ("encoder", "states_dtype")}
        model = {key: spec.model.params.get(key) for key in ("kind", "head", "classes", "class_weights")}
        optim = {key: value for key, value in spec.optim.params.items() if key != "lr"}
        settings = (spec.optim.name, optim, spec.scheduler, spec.trainer, spec.batch, spec.checkpoint)
        facts = {"task": task, "model": model, "recipe": settings, "data": spec.data, "tokenizer": spec.tokenizer}
        return {**facts, "seed": spec.seed, "proteins": results[name].total, **({"rate": rate} if rate else {})}

    first = next(iter(results))
    for name in results:
        mine, others = shared(name), shared(first)
        differing = [key for key in mine.keys() & others.keys() if mine[key] != others[key]]
        if differing:
            raise SystemExit(f"{name} and {first} differ in {', '.join(sorted(differing))}: this is no comparison.")


def table(results: Mapping[str, Result], flip: Flip, max_residues: int) -> str:
    """The results in Markdown."""
    any_of = next(iter(results.values()))
    names = sorted(any_of.total)
    totals = np.array([any_of.total[name] for name in names], dtype=np.float64)

    def right(row: str) -> np.ndarray:
        return np.array([results[row].right[name] for name in names], dtype=np.float64)

    base = next(iter(results))
    lines = [
        f"{len(names)} of {len(flip.resolved)} test proteins (those of up to {max_residues:,} residues), "
        f"{int(totals.sum()):,} resolved residues; steps of {any_of.spec.batch.micro_batch_size} sequences",
        "",
        f"| what | trained parameters | rate | steps | seconds | Q3, test | above {base} | accuracy, validation |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row, result in results.items():
        mean, error = mean_and_error(right(row), totals)
        gain, gain_error = mean_and_error(right(row) - right(base), totals)
        above = "" if row == base else f"{gain:+.4f} +- {gain_error:.4f}"
        lines.append(
            f"| {ROWS[row].what} | {result.trained:,} | {result.spec.optim.params['lr']:g} | {result.steps:,} | "
            f"{result.seconds:.0f} | {mean:.4f} +- {error:.4f} | {above} | {result.validation:.4f} |"
        )
        if abs(mean - result.measured) > 0.002:
            lines.append(f"\n{row}: the run itself measured {result.measured:.4f} on the test proteins.\n")
    return "\n".join(lines)


def table_of_rates(trained: Mapping[str, Sequence[Finished]]) -> str:
    """What each rate came to, in Markdown."""
    lines = ["| what | rate | seconds | accuracy, validation |", "|---|---|---|---|"]
    for row, runs in trained.items():
        lines += [f"| {ROWS[row].what} | {run.rate:g} | {run.seconds:.0f} | {run.validation:.4f} |" for run in runs]
    return "\n".join(lines)


def rates(text: str) -> list[float]:
    """Numbers that are separated by commas."""
    return [float(word) for word in text.split(",")]


def arguments_of_command_line() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("flip", type=Path, help="the folder of sequences.fasta, sampled.fasta, mask.fasta, or .gz")
    parser.add_argument("pretrained", help="whatever restore_from_path takes")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=32, help="sequences a step")
    parser.add_argument("--encoders", default="frozen,full,lora", help=f"beside the baselines: {', '.join(ROWS)}")
    parser.add_argument("--baselines", default=",".join(BASELINES), help="rows that come first; may be empty")
    parser.add_argument("--lr", type=rates, default=[5e-4], help="of the head on a frozen encoder; one or several")
    parser.add_argument("--lr-full", type=rates, default=[1e-4])
    parser.add_argument("--lr-lora", type=rates, default=[5e-4])
    parser.add_argument("--minutes", type=float, help="at most so long for the training of a row")
    parser.add_argument("--seed", type=int, default=1234)
    parser.add_argument("--num-workers", type=int, default=2, help="processes that make a row's batches")
    parser.add_argument("--also", nargs="*", default=[], metavar="KEY=VALUE", help="more settings for every row")
    parser.add_argument("--gpus", type=int, default=1, help="rows that run at a time, each on a GPU of its own")
    parser.add_argument("--rows-per-gpu", type=int, default=1, help="rows that share a GPU; their seconds say little")
    parser.add_argument("--out", type=Path, default=Path("outputs/flip_secondary_structure"))
    options = parser.parse_args()
    asked = [name for name in f"{options.baselines},{options.encoders}".split(",") if name]
    if unknown := [name for name in asked if name not in ROWS]:
        parser.error(f"unknown: {', '.join(unknown)}; choose among {', '.join(ROWS)}")
    options.rates = {"frozen": options.lr, "full": options.lr_full, "lora": options.lr_lora}
    options.rows = [name for name in ROWS if name in asked]
    options.out = options.out.resolve()
    return options


def main() -> None:
    """Print the commands, then the table."""
    options = arguments_of_command_line()
    started = time.perf_counter()
    (options.out / "logs").mkdir(parents=True, exist_ok=True)
    plugin = options.out / "one_hot_plugin"
    make_one_hot(plugin)
    flip = read_flip(options.flip)
    try:
        starts = Starts.of(options.pretrained, load_registry())
    except BioNeMoError as error:
        raise SystemExit(str(error)) from None
    bench, devices = Bench(options, flip, starts, plugin), free_devices(options.gpus, options.rows_per_gpu)
    failures: list[str] = []
    ordered = sorted(options.rows, key=LONGEST_FIRST.index)
    trained = together(devices.qsize(), ordered, lambda name: bench.finetune(name, devices), failures)
    best = {name: max(runs, key=lambda run: run.validation) for name, runs in trained.items()}
    # Short, and mostly spent on starting; what is timed has ended.
    at_a_time = len(ordered) if torch.cuda.is_available() else 1
    found = together(at_a_time, list(best), lambda name: bench.evaluate(name, best[name]), failures)
    results = {name: Result.of(best[name], found[name], flip) for name in options.rows if name in found}
    if results:
        check_comparable(results, chosen_rates=len(options.lr) > 1)
        text = table(results, flip, starts.max_residues)
        if any(len(runs) > 1 for runs in trained.values()):
            text += f"\n\n{table_of_rates({name: trained[name] for name in options.rows if name in trained})}"
        (options.out / "table.md").write_text(text + "\n")
        print(f"\n{text}\n\n{time.perf_counter() - started:.0f} s in all")
    if failures:
        raise SystemExit("\n".join(failures))


if __name__ == "__main__":
    main()
