"""Is the default head of fine-tuning as good as the linear head? Three sets, three seeds, the project's own commands.

Both heads get the same states of a frozen encoder and the same splits: `task=finetune` with its defaults trains the
default head (`mlp` for sequences, `convnet` for residues), and solves the linear head as its baseline.

- secondary structure: residues of the FLIP benchmark, 150 proteins to train on, 40 and 60 held out; accuracy;
- lipophilicity: 4,200 molecules, random splits; R2;
- GB1-like: 2,000 variants of protein G's B1 domain at its four published sites (Wu et al. 2016), whose fitness is made
  here: random effects of single residues and of pairs of them, an S-shaped response and noise; random splits; R2.

The seed decides the run, and the random splits and the fitness too.

    python benchmarks/heads.py DATA_FOLDER OUT_FOLDER [--protein RUN] [--molecule RUN] [--seeds 3]

DATA_FOLDER holds `flip_secondary_structure/{sequences,sampled,mask}.fasta.gz` and `lipophilicity.csv`. Without runs, a
small protein model and a small molecule model are pre-trained for a few steps first, so that nothing is downloaded. The
last line names the sets on which the default head is worse than the linear one by more than 0.01 with any seed.
"""

import argparse
import csv
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import numpy as np
from commands import Command, run_command, run_printed

from bionemo_core.data.readers import FastaSource
from bionemo_core.reporting.metrics_file import read_rows

MARGIN = 0.01
"""The default head may be this much worse."""
PROTEINS = {"train": 150, "val": 40, "test": 60}
GB1 = "MTYKLILNGKTLKGETTTEAVDAATAEKVFKQYANDNGVDGEWTYDDATKTFTVTE"
SITES = (38, 39, 40, 53)
"""V39, D40, G41 and V54, counted from 0."""
LETTERS = "ACDEFGHIKLMNPQRSTVWY"
PRETRAIN = {
    "protein": ("model=esm1nv_tiny", "batch.micro_batch_size=4"),
    "molecule": ("model=megamolbart_xsmall", "batch.micro_batch_size=4"),
}


class DataSet(NamedTuple):
    """What a head is trained on."""

    name: str
    encoder: str
    kind: str
    metric: str
    arguments: tuple[str, ...]
    """Of the command line."""


class Result(NamedTuple):
    """One run: the metric on the test split."""

    linear: float
    default: float


def gb1_like(path: Path, seed: int, number: int = 2000) -> None:
    """Write variants with a made-up fitness."""
    draw = np.random.default_rng(seed)
    residues = draw.integers(0, len(LETTERS), (number, len(SITES)))
    single = draw.normal(size=(len(SITES), len(LETTERS)))
    pairs = draw.normal(scale=0.3, size=(len(SITES), len(SITES), len(LETTERS), len(LETTERS)))
    score = np.zeros(number)
    for place in range(len(SITES)):
        score += single[place, residues[:, place]]
        for other in range(place):
            score += pairs[place, other, residues[:, place], residues[:, other]]
    fitness = 1 / (1 + np.exp(-score)) + draw.normal(scale=0.02, size=number)
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("sequence", "fitness"))
        for own, value in zip(residues, fitness, strict=True):
            letters = list(GB1)
            for site, residue in zip(SITES, own, strict=True):
                letters[site] = LETTERS[residue]
            writer.writerow(("".join(letters), f"{value:.5f}"))


def flip_part(source: Path, folder: Path) -> tuple[str, ...]:
    """Write the first proteins of each split of FLIP's secondary structure; return the arguments that read them."""
    names = {"sequences": "sequences", "labels": "sampled", "mask": "mask"}
    paths = {key: source / f"{name}.fasta.gz" for key, name in names.items()}
    left, kept = dict(PROTEINS), dict[bytes, bytes]()
    for record in FastaSource(paths["labels"], columns=("description",)).records(paths["labels"]):
        header = record.columns[0]
        split = "test" if b"SET=test" in header else "val" if b"VALIDATION=True" in header else "train"
        if left[split]:
            left[split] -= 1
            kept[record.id] = header
    for key, path in paths.items():
        with (folder / f"{key}.fasta").open("wb") as stream:
            for record in FastaSource(path).records(path):
                if record.id in kept:
                    stream.write(b">%s %s\n%s\n" % (record.id, kept[record.id], record.sequence))
    return ("data=flip_fasta", *(f"data.{key}={folder / key}.fasta" for key in names))


def sets_of(source: Path, out: Path, seed: int) -> list[DataSet]:
    """The three sets, for a seed."""
    table = out / f"gb1_{seed}.csv"
    gb1_like(table, seed)
    csv_file = ("data=labelled_csv", f"data.split_seed={seed}")
    fractions = ("data.val_fraction=0.1", "data.test_fraction=0.2")
    lipo = (
        f"data.dataset_path={source / 'lipophilicity.csv'}",
        "data.sequence_column=smiles",
        "data.target_column=lipo",
    )
    gb1 = (f"data.dataset_path={table}", "data.target_column=fitness")
    flip = flip_part(source / "flip_secondary_structure", out)
    return [
        DataSet("secondary structure", "protein", "token_classification", "accuracy", flip),
        DataSet("lipophilicity", "molecule", "sequence_regression", "r2", (*csv_file, *fractions, *lipo)),
        DataSet("GB1-like", "protein", "sequence_regression", "r2", (*csv_file, *fractions, *gb1)),
    ]


def pretrain(encoder: str, options: argparse.Namespace, command: Command) -> str:
    """Pre-train a small model on the sequences that are bundled with the project; return its run folder."""
    folder = options.out / "runs" / encoder
    arguments = [*PRETRAIN[encoder], f"name={encoder}", f"home={options.out / 'home'}", *options.also]
    arguments += [f"trainer.max_steps={options.pretrain_steps}", f"trainer.val_check_interval={options.pretrain_steps}"]
    arguments += ["trainer.limit_val_batches=1", "scheduler.warmup_steps=5", "batch.num_workers=0"]
    run_printed(encoder, [*arguments, "trainer.progress_bar=false"], folder, command)
    return str(folder)


def compare(data: DataSet, encoder: str, seed: int, options: argparse.Namespace, command: Command) -> Result:
    """Fine-tune with the defaults; return what both heads have on the test split."""
    label = f"{data.name.replace(' ', '_')}_{seed}"
    folder = options.out / "runs" / label
    arguments = ["task=finetune", f"restore_from_path={encoder}", f"task.kind={data.kind}", *data.arguments]
    arguments += [f"name={label}", f"home={options.out / 'home'}", f"seed={seed}", "trainer.progress_bar=false"]
    run_printed(label, [*arguments, *options.also], folder, command)
    baseline = json.loads((folder / "baseline.json").read_text())["metrics"]["test"]
    tested = [row for row in read_rows(folder / "metrics.csv") if f"test_{data.metric}" in row]
    return Result(baseline[data.metric], tested[-1][f"test_{data.metric}"])


def table_of(sets: Mapping[str, DataSet], results: Mapping[str, Sequence[Result]]) -> str:
    """The comparison in Markdown."""
    lines = ["| set | metric | linear | default | difference by seed | mean |", "|---|---|---|---|---|---|"]
    for name, own in results.items():
        differences = [one.default - one.linear for one in own]
        heads = (f"{mean(values):.4f}" for values in ([one.linear for one in own], [one.default for one in own]))
        each = ", ".join(f"{one:+.4f}" for one in differences)
        lines.append(f"| {name} | {sets[name].metric} | {' | '.join(heads)} | {each} | {mean(differences):+.4f} |")
    return "\n".join(lines)


def lost(results: Mapping[str, Sequence[Result]]) -> list[str]:
    """The sets on which the default head is worse by more than the margin, with any seed."""
    return [name for name, own in results.items() if min(one.default - one.linear for one in own) < -MARGIN]


def run_benchmark(options: argparse.Namespace, command: Command = run_command) -> dict[str, list[Result]]:
    """Run all; print the table."""
    started = time.perf_counter()
    if (options.out / "runs").exists():
        raise SystemExit(f"{options.out}: has the runs of an earlier call. Name another folder.")
    options.out.mkdir(parents=True, exist_ok=True)
    encoders = {name: getattr(options, name) or pretrain(name, options, command) for name in PRETRAIN}
    sets: dict[str, DataSet] = {}
    results: dict[str, list[Result]] = {}
    for seed in range(1, options.seeds + 1):
        for data in sets_of(options.data, options.out, seed):
            sets[data.name] = data
            results.setdefault(data.name, []).append(compare(data, encoders[data.encoder], seed, options, command))
    print(f"\n{table_of(sets, results)}\n")
    print(f"worse by more than {MARGIN}: {', '.join(lost(results)) or 'none'}; {time.perf_counter() - started:.0f} s")
    return results


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder with both published sets")
    parser.add_argument("out", type=Path, help="a folder for the made set and the runs")
    parser.add_argument("--protein", help="a protein encoder, whatever restore_from_path takes")
    parser.add_argument("--molecule", help="a model of molecules")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pretrain-steps", type=int, default=40)
    parser.add_argument("--also", nargs="*", default=[], help="further settings of all commands")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(bool(lost(run_benchmark(options_of()))))
