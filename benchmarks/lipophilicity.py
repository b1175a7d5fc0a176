"""Do embeddings say more of lipophilicity than fingerprints, and than a network that learned nothing?

Regression of `lipo` (MoleculeNet: logD at pH 7.4, 4,200 molecules) from

- the embeddings of each run: the mean of the hidden states of the canonical SMILES, of MolMIM its latents' mean;
- the same network with random weights, built from the run's specification with another seed;
- Morgan fingerprints, radius 2, 2,048 bits: scaled as embeddings are, and as bits, only centred. Scaling makes much
  of rare bits, so the second is the baseline to beat.

Molecules that one of the models cannot read (too long, an unknown token) are left out for all sides and counted. All
sides have the same splits, 80/10/10 at random by seed, inputs with mean 0 and deviation 1 over the training split
(what is constant there is 0 everywhere), the same heads and as many tries:

- MLP: v1's MLPModel as the head `mlp` is by default, AdamW, the best epoch and the best of three rates by the
  validation split;
- ridge: a linear regression in closed form, the best of a few penalties by the validation split.

Given are means over the seeds and, for RMSE, standard deviations; a deviation holds that of the splits, which is the
same for all sides. Embeddings are computed in float32.

    python benchmarks/lipophilicity.py lipophilicity.csv RUN_FOLDER [RUN_FOLDER ...] [--seeds 3] [--epochs 100]
"""

import argparse
import csv
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rdkit.Chem import rdFingerprintGenerator
from torch import Tensor

from bionemo_core.builtin import load_registry
from bionemo_core.finetuning.heads import Mlp
from bionemo_core.inference.sampling import Seq2SeqInference
from bionemo_core.models.load import OpenedModel, open_model
from bionemo_core.nn.residue_states import ResidueStates
from bionemo_core.plugins import Registry
from bionemo_core.protocols import BuildContext
from bionemo_molbart.chemistry import FINGERPRINT_BITS, FINGERPRINT_RADIUS
from bionemo_molbart.molecules import canonical_smiles, parsed

RATES = (3e-4, 1e-3, 3e-3)
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Of ridge regression, a molecule."""
CONSTANT = 1e-6
"""An input that deviates by a smaller share of what the most variable one does, over the training split, is none."""
BATCH_SIZE = 256
PATIENCE = 20
"""Epochs without a better validation loss after which training ends."""
NAME_WIDTH = 36
EMBEDDED_TOGETHER = {"cpu": 256, "cuda": 2048}


class Molecules(NamedTuple):
    """What is learned from."""

    smiles: list[str]
    """Canonical."""
    values: Tensor
    """float32 [molecules]."""
    left_out: Counter[str]
    """Numbers by reason."""


class Side(NamedTuple):
    """One kind of input."""

    name: str
    inputs_of: Callable[[list[str]], Tensor]
    """From SMILES to [molecules, features]."""
    scaled: bool = True
    """To deviation 1."""


class Problem(NamedTuple):
    """One split of one side, standardised; inputs [molecules, features] and values [molecules] of each part."""

    train: tuple[Tensor, Tensor]
    val: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    scale: float
    """Deviation of the values."""


class Fit(NamedTuple):
    """One try of a head."""

    val_loss: float
    predictions: Tensor
    """Of the test split, standardised."""
    setting: float
    """Its rate or penalty."""


class Score(NamedTuple):
    """The chosen try of a head on the test split."""

    rmse: float
    r2: float
    setting: float


def read_molecules(path: Path, models: Sequence[Seq2SeqInference]) -> Molecules:
    """The molecules of a table with the columns smiles and lipo that every model can read."""
    smiles, values, left_out = [], [], Counter[str]()
    with path.open(newline="") as stream:
        for row in csv.DictReader(stream):
            form = canonical_smiles(row["smiles"])
            reason = unreadable(form, models)
            if reason:
                left_out[reason] += 1
            else:
                smiles.append(form)
                values.append(float(row["lipo"]))
    return Molecules(smiles, torch.tensor(values), left_out)


def unreadable(smiles: str | None, models: Sequence[Seq2SeqInference]) -> str:
    """Why a canonical SMILES is left out; nothing if all models can read it."""
    if not smiles:
        return "no molecules"
    for model in models:
        ids = model.tokenizer.encode(smiles)
        if len(ids) > model.seq_length:
            return f"of more than {model.seq_length} tokens"
        if (ids == model.tokenizer.unk_id).any():
            return "with unknown tokens"
    return ""


def random_twin(opened: OpenedModel, registry: Registry, device: str) -> OpenedModel:
    """The same network with random weights, of another seed than the run's."""
    context = BuildContext(seed=int(opened.facts.get("seed", 0)) + 1, device=device)
    module = registry.build(opened.spec.model, tokenizer=opened.tokenizer, context=context)
    return replace(opened, module=module.to(device).eval())


def fingerprints(smiles: Sequence[str]) -> Tensor:
    """Morgan fingerprints, float32 [molecules, bits]."""
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=FINGERPRINT_RADIUS, fpSize=FINGERPRINT_BITS)
    rows = [generator.GetFingerprintAsNumPy(parsed(one)) for one in smiles]
    return torch.from_numpy(np.array(rows, dtype=np.float32))


def split_problem(inputs: Tensor, values: Tensor, seed: int, *, scaled: bool = True) -> Problem:
    """80/10/10 at random by seed, standardised by the training split; inputs only centred if not `scaled`."""
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(values))).to(inputs.device)
    tenth = len(values) // 10
    test, val, train = order[:tenth], order[tenth : 2 * tenth], order[2 * tenth :]
    deviation = inputs[train].std(dim=0)
    x = (inputs - inputs[train].mean(dim=0)) / (deviation if scaled else 1.0)
    x = torch.where(deviation > CONSTANT * deviation.max(), x, 0.0)
    scale = values[train].std()
    y = (values - values[train].mean()) / scale
    return Problem(*((x[rows], y[rows]) for rows in (train, val, test)), float(scale))


def fit_mlp(problem: Problem, rate: float, seed: int, epochs: int) -> Fit:
    """Train the head at one rate; what it says at the epoch that is best on the validation split."""
    (x, y), (x_val, y_val), (x_test, _) = problem.train, problem.val, problem.test
    torch.manual_seed(seed)
    # One state a molecule, so an answer for every state is one for every molecule.
    head = Mlp().build(x.shape[1], 1, per_residue=True).to(x.device)
    optimizer = torch.optim.AdamW(head.parameters(), lr=rate, fused=True)
    held_out, best, since = torch.cat((x_val, x_test)), Fit(float("inf"), y_val, rate), 0
    for _ in range(epochs):
        head.train()
        for rows in torch.randperm(len(x), device=x.device).split(BATCH_SIZE):
            optimizer.zero_grad()
            (answers(head, x[rows]) - y[rows]).square().mean().backward()
            optimizer.step()
        with torch.no_grad():
            said_val, said_test = answers(head.eval(), held_out).split((len(x_val), len(x_test)))
        loss = float((said_val - y_val).square().mean())
        since = 0 if loss < best.val_loss else since + 1
        if not since:
            best = Fit(loss, said_test, rate)
        if since >= PATIENCE:
            break
    return best


def answers(head: torch.nn.Module, inputs: Tensor) -> Tensor:
    """What the head says of each molecule, [molecules]."""
    return head(ResidueStates(inputs, torch.ones(len(inputs), dtype=torch.int64, device=inputs.device)))[:, 0]


def fit_ridge(problem: Problem, penalty: float) -> Fit:
    """Least squares with a penalty on the weights, in float64; over the training split all means are 0."""
    (x, y), (x_val, y_val), (x_test, _) = ((a.double(), b.double()) for a, b in problem[:3])
    squares = x.T @ x + penalty * len(x) * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    weights = torch.linalg.solve(squares, x.T @ y)
    return Fit(float((x_val @ weights - y_val).square().mean()), x_test @ weights, penalty)


def scored(problem: Problem, fits: Sequence[Fit]) -> Score:
    """The try that is best on the validation split, on the test split, in the units of the values."""
    best = min(fits, key=lambda fit: fit.val_loss)
    truth = problem.test[1].to(best.predictions.dtype)
    squared = (best.predictions - truth).square()
    r2 = 1 - squared.sum() / (truth - truth.mean()).square().sum()
    return Score(float(squared.mean().sqrt()) * problem.scale, float(r2), best.setting)


def scores_of(
    side: Side, molecules: Molecules, device: str, seeds: int, epochs: int
) -> tuple[int, list[Score], list[Score]]:
    """The features of an input, and the scores of the MLP and of ridge regression, one a seed."""
    inputs, values = side.inputs_of(molecules.smiles).float().to(device), molecules.values.to(device)
    by_mlp, by_ridge = [], []
    for seed in range(seeds):
        problem = split_problem(inputs, values, seed, scaled=side.scaled)
        by_mlp.append(scored(problem, [fit_mlp(problem, rate, seed, epochs) for rate in RATES]))
        by_ridge.append(scored(problem, [fit_ridge(problem, penalty) for penalty in PENALTIES]))
    return inputs.shape[1], by_mlp, by_ridge


def sides_of(opened: Sequence[OpenedModel], registry: Registry, device: str) -> Iterator[Side]:
    """The runs, random weights once for each network, fingerprints."""
    twins: dict[str, tuple[int, OpenedModel]] = {}
    for number, one in enumerate(opened, start=1):
        yield Side(f"{number}: {one.spec.model.name}, step {one.facts.get('step', '?')}", embedder(one, device))
        twins.setdefault(str(asdict(one.spec.model)), (number, one))
    for number, one in twins.values():
        yield Side(f"random weights, otherwise as {number}", embedder(random_twin(one, registry, device), device))
    yield Side("Morgan fingerprints", fingerprints)
    yield Side("Morgan fingerprints, as bits", fingerprints, scaled=False)


def embedder(opened: OpenedModel, device: str) -> Callable[[list[str]], Tensor]:
    """Embeddings, [molecules, hidden]."""
    return Seq2SeqInference.of(opened, batch_size=EMBEDDED_TOGETHER[device]).seq_to_embeddings


def line(name: str, width: int, by_mlp: Sequence[Score], by_ridge: Sequence[Score]) -> str:
    """One line of the table."""
    cells = [f"{name:<{NAME_WIDTH}}", f"{width:>6,}"]
    for scores in (by_mlp, by_ridge):
        rmse = np.array([score.rmse for score in scores])
        spread = f"{rmse.std(ddof=1):.3f}" if len(rmse) > 1 else "?"
        cells += [f"{f'{rmse.mean():.3f} +- {spread}':<15}", f"{np.mean([score.r2 for score in scores]):>6.3f}"]
    chosen = (" ".join(f"{score.setting:g}" for score in scores) for scores in (by_mlp, by_ridge))
    return " | ".join([*cells, "; ".join(chosen)])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path, help="a table with the columns smiles and lipo")
    parser.add_argument("runs", nargs="+", help="whatever a model can be opened from")
    parser.add_argument(
        "--device", choices=list(EMBEDDED_TOGETHER), default="cuda" if torch.cuda.is_available() else "cpu"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=100, help="the most that a head is trained for")
    arguments = parser.parse_args()
    started, registry, device = time.perf_counter(), load_registry(), arguments.device
    opened = [open_model(run, registry, device=device) for run in arguments.runs]
    molecules = read_molecules(arguments.csv, [Seq2SeqInference.of(one) for one in opened])
    of_values = f"deviation {float(molecules.values.std()):.3f}"
    print(f"{len(molecules.smiles):,} molecules, {of_values}; {arguments.seeds} seeds; {device}")
    for reason, number in molecules.left_out.items():
        print(f"left out: {number:,} {reason}")
    for number, run in enumerate(arguments.runs, start=1):
        print(f"{number}: {run}")
    columns = ("test RMSE MLP  ", "    R2", "test RMSE ridge", "    R2", "chosen rates; penalties")
    print(" | ".join((f"{'input':<{NAME_WIDTH}}", " width", *columns)))
    for side in sides_of(opened, registry, device):
        print(line(side.name, *scores_of(side, molecules, device, arguments.seeds, arguments.epochs)), flush=True)
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
