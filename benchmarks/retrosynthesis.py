"""Retrosynthesis: MegaMolBART learns to take molecules apart, and to put them together again.

Makes a set of reactions from molecules (`reaction_templates.py` says how), and runs the project's own commands, which
are printed:

1. `model=megamolbart data=smiles`: pre-training on the molecules of the training reactions;
2. `restore_from_path=RUN data=pairs`: fine-tuning from product to reactants (backward), and in another run from
   reactants to product (forward);
3. `task=evaluate`: ten answers of a beam search for each held-out reaction.

No product of a held-out reaction is in the training split, neither as a product nor in the pre-training as a molecule.
The tables are counted from the answers themselves, apart from what `task=evaluate` counts:

- top-k: share of reactions whose right answer is among the first k (canonical SMILES; the order of the reactants does
  not matter), with the binomial standard error;
- valid: share of first answers, and of all answers, that are SMILES of molecules;
- round trip (backward): share of first answers that the forward template of any reaction turns into the product. It
  counts another way to make the product as right too.

    python benchmarks/retrosynthesis.py zinc_20k.smi.gz OUT_FOLDER [--recombined 120000]
    python benchmarks/retrosynthesis.py some.smi OUT_FOLDER --tiny

The numbers of steps are for one H200, where all of it takes less than 8 minutes; a slower device stops each training
after its share of `--minutes`, and the last lines say so. `--tiny` tests the script: a few steps of a very small model.
"""

import argparse
import csv
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

from commands import Command, run_command, run_printed
from reaction_templates import TEMPLATES, Splits, add_arguments, make_reactions, sides

from bionemo_core.reporting.metrics_file import read_rows
from bionemo_molbart.molecules import canonical_smiles

ANSWERS = 10
TOP = (1, 3, 5, 10)
DIRECTIONS = ("backward", "forward")
SHARES = {"pretrain": 0.2, "backward": 0.3, "forward": 0.2}
"""Of `--minutes`, the longest that a training may take; the rest is for the set, starting and the evaluations."""
TINY_MODEL = ("model.num_layers=1", "model.hidden_size=32", "model.num_attention_heads=2")
TINY_STEPS = 3


class Row(NamedTuple):
    """One held-out reaction and the answers to it, best first."""

    template: str
    source: str
    target: str
    answers: tuple[str, ...]

    @property
    def forms(self) -> list[str | None]:
        """The canonical forms of the answers; None: no molecule."""
        return [canonical_smiles(answer) if answer else None for answer in self.answers]


class Counts(NamedTuple):
    """What is counted of some reactions."""

    reactions: int
    top: tuple[int, ...]
    """Those with the right answer among the first k, for each of `TOP`."""
    valid_first: int
    valid: int
    answers: int
    round_trips: int


@dataclass(frozen=True)
class Bench:
    """The commands of one benchmark."""

    options: argparse.Namespace
    command: Command

    @property
    def out(self) -> Path:
        """Where everything is written."""
        return Path(self.options.out)

    @property
    def loader(self) -> list[str]:
        """The batches of all commands."""
        return [f"batch.micro_batch_size={self.options.batch}", f"batch.num_workers={self.options.num_workers}"]

    def run(self, label: str, *arguments: str, folder: Path | None = None) -> None:
        """Print and run a command."""
        run_printed(label, [*arguments, *self.options.also], folder, self.command)

    def train(self, label: str, steps: int, *arguments: str) -> Path:
        """Train a model; return its run folder."""
        folder, options = self.out / "runs" / label, self.options
        recipe = [
            *(f"trainer.max_steps={steps}", f"trainer.max_time_min={options.minutes * SHARES[label]:.2f}"),
            *(f"trainer.val_check_interval={steps}", "trainer.limit_val_batches=1", "trainer.progress_bar=false"),
            *("optim=adamw", f"optim.lr={options.lr}", "optim.betas=[0.9,0.98]", "scheduler=cosine"),
            *(f"scheduler.warmup_steps={min(200, steps // 3)}", "scheduler.constant_steps=0", "scheduler.min_lr=1e-5"),
        ]
        model = [f"model={options.model}", f"model.seq_length={options.seq_length}"]
        model += TINY_MODEL if options.tiny else ()
        own = [f"name={label}", f"seed={options.seed}", f"home={self.out / 'home'}"]
        self.run(label, *model, *arguments, *recipe, *self.loader, *own, folder=folder)
        return folder

    def pretrain(self, splits: Splits) -> Path:
        """Train on the molecules of the training reactions."""
        path = self.out / "molecules.smi"
        path.write_text("".join(f"{text}\n" for text in sides(splits.train)))
        data = ["data=smiles", f"data.path={path}", "data.canonicalize=false", "data.val_size=100", "data.test_size=0"]
        return self.train("pretrain", self.options.pretrain_steps, *data)

    def answer(self, direction: str, pretrained: Path, table: Path) -> list[Row]:
        """Fine-tune for one direction; return the answers to the held-out reactions."""
        data = ["data=pairs", f"data.path={table}", "data.reaction_column=reaction", "data.split_column=split"]
        data += ["data.id_column=id", "data.canonicalize=false", f"data.direction={direction}"]
        steps = self.options.steps if direction == "backward" else self.options.forward_steps
        run = self.train(direction, steps, f"restore_from_path={pretrained}", *data)
        report = self.out / f"{direction}_report"
        search = [f"task.beam_size={ANSWERS}", f"task.output={report}", "task.overwrite=true"]
        search += [f"home={self.out / 'home'}", *self.loader]
        self.run(direction, "task=evaluate", f"restore_from_path={run}", *data, *search)
        return read_answers(report / "predictions.csv", table)

    def progress(self, label: str) -> str:
        """How many steps a training made, and its losses."""
        rows = read_rows(self.out / "runs" / label / "metrics.csv")
        steps = max((int(row["step"]) for row in rows if "reduced_train_loss" in row), default=0)
        loss = next((f"{row['val_loss']:.3f}" for row in reversed(rows) if "val_loss" in row), "?")
        return f"{label}: {steps:,} steps, val_loss {loss}"


def read_answers(predictions: Path, table: Path) -> list[Row]:
    """The answers to every pair, with the template of its reaction."""
    with table.open(newline="") as stream:
        templates = {row["id"]: row["template"] for row in csv.DictReader(stream)}
    with predictions.open(newline="") as stream:
        return [
            Row(
                templates[row["id"]],
                row["source"],
                row["target"],
                tuple(row[f"answer_{k}"] for k in range(1, ANSWERS + 1) if row[f"score_{k}"]),
            )
            for row in csv.DictReader(stream)
        ]


def makes(answer: str, product: str) -> bool:
    """Whether a template turns two molecules into a product."""
    pairs = list(permutations(answer.split(".")))
    return len(pairs) == 2 and any(product in one.products(pair) for one in TEMPLATES for pair in pairs)


def count(rows: Sequence[Row], direction: str) -> Counts:
    """Count what is right and what is valid."""
    top, valid_first, valid, answers, round_trips = [0] * len(TOP), 0, 0, 0, 0
    for row in rows:
        forms, wanted = row.forms, canonical_smiles(row.target)
        rank = forms.index(wanted) + 1 if wanted in forms else math.inf
        for place, k in enumerate(TOP):
            top[place] += rank <= k
        valid_first += bool(forms and forms[0])
        valid += sum(form is not None for form in forms)
        answers += len(forms)
        if direction == "backward" and forms and forms[0]:
            round_trips += makes(forms[0], str(canonical_smiles(row.source)))
    return Counts(len(rows), tuple(top), valid_first, valid, answers, round_trips)


def share(part: int, whole: int, *, error: bool = False) -> str:
    """A share in per cent; with its binomial standard error."""
    if not whole:
        return ""
    text = f"{100 * part / whole:.1f}"
    return f"{text} +- {100 * math.sqrt(part * (whole - part) / whole**3):.1f}" if error else text


def line(name: str, counts: Counts, direction: str, *, errors: bool) -> str:
    """One line of a table."""
    cells = [name, f"{counts.reactions:,}", *(share(one, counts.reactions, error=errors) for one in counts.top)]
    cells += [share(counts.valid_first, counts.reactions), share(counts.valid, counts.answers)]
    cells += [share(counts.round_trips, counts.reactions)] if direction == "backward" else []
    return f"| {' | '.join(cells)} |"


def table_of(direction: str, rows: Sequence[Row]) -> str:
    """The results of one direction, all and by template, in Markdown; shares in per cent."""
    head = [direction, "reactions", *(f"top-{k}" for k in TOP), "first answer valid", "answers valid"]
    head += ["round trip"] if direction == "backward" else []
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines.append(line("all", count(rows, direction), direction, errors=True))
    for template in TEMPLATES:
        own = [row for row in rows if row.template == template.name]
        lines.append(line(template.name, count(own, direction), direction, errors=False))
    return "\n".join(lines)


def run_benchmark(options: argparse.Namespace, command: Command = run_command) -> dict[str, list[Row]]:
    """Make the set, run the commands, print the tables; return the answers by direction."""
    started = time.perf_counter()
    out = Path(options.out)
    if (out / "runs").exists():
        raise SystemExit(f"{out}: has the runs of an earlier call. Name another folder.")
    out.mkdir(parents=True, exist_ok=True)
    splits = make_reactions(options, out / "reactions.csv")
    bench, found, tables = Bench(options, command), {}, []
    pretrained = bench.pretrain(splits)
    for direction in DIRECTIONS[: options.directions]:
        found[direction] = bench.answer(direction, pretrained, out / "reactions.csv")
        tables.append(table_of(direction, found[direction]))
        # What is there is kept, should the time of a borrowed machine end before the next one.
        (out / "table.md").write_text("\n\n".join(tables) + "\n")
        print(f"\n{tables[-1]}\n", flush=True)
    print("; ".join(bench.progress(label) for label in ("pretrain", *found)))
    print(f"{time.perf_counter() - started:.0f} s in all")
    return found


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.set_defaults(recombined=120_000)
    parser.add_argument("out", type=Path, help="a folder for the set, the runs and the table")
    parser.add_argument("--model", default="megamolbart")
    parser.add_argument("--seq-length", type=int, default=128)
    parser.add_argument("--pretrain-steps", type=int, default=400)
    parser.add_argument("--steps", type=int, default=1500, help="of the fine-tuning from product to reactants")
    parser.add_argument("--forward-steps", type=int, default=900)
    parser.add_argument("--batch", type=int, default=512, help="rows a step, of one or more pairs each")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--minutes", type=float, default=7.5, help="for all of it")
    parser.add_argument("--num-workers", type=int, default=max(0, len(os.sched_getaffinity(0)) - 2))
    parser.add_argument("--directions", type=int, default=2, help="1: backward only")
    parser.add_argument("--tiny", action="store_true", help="a few steps of a very small model")
    parser.add_argument("--also", nargs="*", default=[], help="further settings of all commands, such as seed=2")
    options = parser.parse_args(arguments)
    if options.tiny:
        options.pretrain_steps = options.steps = options.forward_steps = TINY_STEPS
        options.batch, options.recombined, options.val, options.test = 4, 20, 4, 6
        options.num_workers, options.processes = 0, 1
    return options


if __name__ == "__main__":
    run_benchmark(options_of())
