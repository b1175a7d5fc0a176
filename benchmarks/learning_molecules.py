"""What did a MolMIM or MegaMolBART run learn of molecules that it never saw?

Evaluates a run of `bionemo-run` on its own test split, or on the SMILES of another file; canonical SMILES are read and
wanted, whatever spelling the run trained on. Molecules that are longer than the model or have a token that it lacks
are left out and counted. One table:

- token accuracy: share of tokens, the end token included, that are the likeliest given the molecule and all tokens
  before; one forward pass a batch;
- reconstruction: share of molecules that greedy decoding writes again, character by character and as the same
  molecule (canonical form), and share of decodings that are SMILES at all;
- near test molecules: the same decoding with Gaussian noise added to the hidden states (`greedy-perturbate`);
- prior: decoding of latents drawn from N(0, I), where the model has latents (MolMIM).

Of samples: valid ones of all; of the valid, different canonical forms, and those that are not in the training split
(canonical forms on both sides). Errors of shares are binomial, as if all were independent (there is none for
uniqueness, which depends on how many are drawn); that of token accuracy treats molecules as independent, not tokens.
A GPU computes in bfloat16, a CPU in float32.

    bionemo-run model=molmim_xsmall data=smiles data.path=zinc_20k.smi.gz data.val_size=500 data.test_size=1000 ...
    python benchmarks/learning_molecules.py RUN_FOLDER [--limit 1000] [--radius 1.0] [--samples 1] [--prior 1000]
    python benchmarks/learning_molecules.py ARTEFACT --data held_out.smi.gz
"""

import argparse
import math
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from bionemo_core.builtin import load_registry
from bionemo_core.config.schema import RunSpec
from bionemo_core.config.spec import from_json
from bionemo_core.data.batches.batch import TokenBatch
from bionemo_core.data.batches.rows import RowShape, collate
from bionemo_core.data.readers import SmilesSource
from bionemo_core.inference.sample_metrics import GeneratedText, SampleCounts
from bionemo_core.inference.sampling import Seq2SeqInference, source_batch
from bionemo_core.models.load import open_model
from bionemo_core.plugins import Registry
from bionemo_core.protocols import BuildContext, Example, RecordDataset
from bionemo_molbart.chemistry import MoleculeJudge
from bionemo_molbart.molecules import canonical_smiles

METHOD = "greedy-perturbate"
DTYPES = {"cpu": "float32", "cuda": "bfloat16"}
MANY = 100_000
"""SMILES that are worth several processes."""
BATCH_SIZES = {"cpu": 256, "cuda": 2048}


class Row(NamedTuple):
    """One line of the table."""

    name: str
    part: int
    whole: int
    error: float | None
    noun: str


def share(name: str, part: int, whole: int, noun: str) -> Row:
    """A share with its binomial standard error."""
    error = math.sqrt(part * (whole - part) / whole**3) if whole else None
    return Row(name, part, whole, error, noun)


class HeldOut(NamedTuple):
    """What is looked at, and what a sample is new against."""

    smiles: list[str]
    """Canonical."""
    left_out: Counter[str]
    """Numbers by reason."""
    known: set[str] | None
    """Canonical forms of the training split; None where nothing says which that was."""


def run_spec(path: Path) -> RunSpec | None:
    """The run of a run folder or of one of its checkpoints; None where nothing says it, as with an artefact."""
    for folder in (path, path.parent.parent):
        if (folder / "run.json").is_file():
            return from_json((folder / "run.json").read_text())
    return None


def texts_of(records: RecordDataset | list[bytes], limit: int | None = None) -> list[str]:
    """The SMILES of a split: all, or so many at equal distances."""
    count = len(records)
    rows = range(count) if limit is None or limit >= count else np.linspace(0, count - 1, limit).astype(int).tolist()
    return [one if isinstance(one, str) else one.decode("latin-1") for one in (records[row] for row in rows)]


def canonical_forms(texts: Sequence[str]) -> set[str]:
    """The different molecules among these SMILES; of many, by several processes."""
    if len(texts) < MANY:
        return {form for form in map(canonical_smiles, texts) if form is not None}
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        return {form for form in pool.map(canonical_smiles, texts, chunksize=2000) if form is not None}


def usable(texts: Sequence[str], inference: Seq2SeqInference) -> tuple[list[str], Counter[str]]:
    """The canonical SMILES that the model can read, and how many others there are, by reason."""
    kept: list[str] = []
    left_out: Counter[str] = Counter()
    for form in map(canonical_smiles, texts):
        ids = None if form is None else inference.tokenizer.encode(form)
        if form is None or ids is None or not len(ids):
            left_out["no molecules"] += 1
        elif len(ids) > inference.seq_length:
            left_out[f"of more than {inference.seq_length} tokens"] += 1
        elif (ids == inference.tokenizer.unk_id).any():
            left_out["with unknown tokens"] += 1
        else:
            kept.append(form)
    return kept, left_out


def held_out(arguments: argparse.Namespace, inference: Seq2SeqInference, registry: Registry) -> HeldOut:
    """The molecules of the file that was named, or of the run's test split; and the run's training split.

    Raises:
        SystemExit: there are none.
    """
    spec, known = run_spec(arguments.run), None
    records: RecordDataset | list[bytes] = []
    if spec is not None:
        context = BuildContext(seed=spec.seed, device=arguments.device, home=spec.home)
        splits = registry.build(spec.data, tokenizer=inference.tokenizer, context=context)
        known, records = canonical_forms(texts_of(splits.train)), splits.test or []
    if arguments.data is not None:
        records = [one.sequence for one in SmilesSource(arguments.data).records(arguments.data)]
    smiles, left_out = usable(texts_of(records, arguments.limit), inference)
    if not smiles:
        raise SystemExit(
            f"{arguments.run}: there are no molecules to look at. Train with data.test_size, or give a file: --data."
        )
    return HeldOut(smiles, left_out, known)


def target_batch(ids: Sequence[np.ndarray], inference: Seq2SeqInference) -> TokenBatch:
    """What the decoder reads, from the begin token on, and what it shall answer, up to the end token; a row each."""
    bos, eos = ([one] for one in (inference.tokenizer.bos_id, inference.tokenizer.eos_id))
    examples = [
        Example(np.concatenate((bos, one)), np.concatenate((one, eos)), np.ones(len(one) + 1, dtype=np.bool_))
        for one in ids
    ]
    shape = RowShape(inference.max_length, len(ids), inference.tokenizer.pad_id, packing=False)
    return TokenBatch.of(collate(examples, len(ids), shape))


@torch.no_grad()
def token_hits(inference: Seq2SeqInference, smiles: Sequence[str], device: str) -> np.ndarray:
    """Right tokens and tokens of every molecule, shape [molecules, 2], in the order of their lengths."""
    network, tokenizer = inference.network, inference.tokenizer
    ids, hits = sorted(inference.tokenize(smiles), key=len), []
    for start in range(0, len(ids), inference.batch_size):
        part = ids[start : start + inference.batch_size]
        memory = network.encode(source_batch(part, tokenizer.pad_id, inference.seq_length).to(device))
        target = target_batch(part, inference).to(device)
        likeliest = network.decoder_logits(memory, target)[..., : tokenizer.vocab_size].argmax(dim=-1)
        right = (likeliest == target.labels) & target.loss_mask
        hits.append(torch.stack((right.sum(dim=1), target.loss_mask.sum(dim=1)), dim=1))
    return torch.cat(hits).cpu().numpy()


def accuracy_row(hits: np.ndarray) -> Row:
    """Token accuracy; its error over molecules (ratio estimator)."""
    right, tokens = hits.sum(axis=0).tolist()
    residuals = hits[:, 0] - right / tokens * hits[:, 1]
    n = len(hits)
    error = math.sqrt(n / max(n - 1, 1) * (residuals**2).sum()) / tokens
    return Row("token accuracy, teacher-forced", right, tokens, error, "tokens")


def counted(starts: Sequence[str], found: Sequence[Sequence[str]], known: set[str] | None) -> SampleCounts:
    """The counts over what was written near each start; an empty start stands for the prior."""
    counts = SampleCounts(MoleculeJudge(), known)
    counts.count(
        GeneratedText(str(place), start, number, 0, text)
        for place, (start, texts) in enumerate(zip(starts, found, strict=True))
        for number, text in enumerate(texts)
    )
    return counts


def reconstruction_rows(inference: Seq2SeqInference, smiles: list[str]) -> list[Row]:
    """What greedy decoding makes of the molecules themselves."""
    found = inference.sample(1, seqs=smiles, sampling_method=METHOD, scaled_radius=0.0)
    counts = counted(smiles, found, None)
    same = sum(texts[0] == start for start, texts in zip(smiles, found, strict=True))
    return [
        share("reconstruction: every character", same, len(smiles), "molecules"),
        share("  the same molecule", counts.identical, len(smiles), "molecules"),
        share("  valid SMILES", counts.valid, len(smiles), "decodings"),
    ]


def sample_rows(name: str, counts: SampleCounts) -> list[Row]:
    """Validity, uniqueness and, where the training split is known, novelty."""
    rows = [
        share(f"{name}: valid", counts.valid, counts.samples, "samples"),
        share("  unique", len(counts.seen), counts.valid, "valid ones")._replace(error=None),
    ]
    if counts.known is not None:
        rows.append(share("  not in the training split", counts.novel, counts.valid, "valid ones"))
    return rows


def sampling_rows(inference: Seq2SeqInference, molecules: HeldOut, arguments: argparse.Namespace) -> list[Row]:
    """Samples near the molecules, and from the prior where there is one."""
    options = {"sampling_method": METHOD, "seed": arguments.seed}
    smiles, known = molecules.smiles, molecules.known
    found = inference.sample(arguments.samples, seqs=smiles, scaled_radius=arguments.radius, **options)
    rows = sample_rows(f"near them, radius {arguments.radius:g}", counted(smiles, found, known))
    if getattr(inference.network, "latent_shape", None) is not None and arguments.prior:
        drawn = inference.sample_prior(arguments.prior, **options)
        rows += sample_rows("prior N(0, I)", counted([""] * len(drawn), [[text] for text in drawn], known))
    return rows


def print_table(rows: Sequence[Row]) -> None:
    """A line a row: share, standard error, and the numbers that it comes from."""
    for row in rows:
        value = f"{row.part / row.whole:.4f}" if row.whole else "-"
        error = "" if row.error is None else f"+- {row.error:.4f}"
        print(f"{row.name:<34}  {value:>6} {error:<9}  {row.part:>7,} of {row.whole:,} {row.noun}")


def arguments_of_call() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder, one of its checkpoints, or an artefact with --data")
    parser.add_argument("--data", type=Path, help="held-out molecules, an SMI file; the run's test split by default")
    parser.add_argument("--limit", type=int, help="molecules to look at, at equal distances; all by default")
    parser.add_argument("--device", choices=list(DTYPES), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--radius", type=float, default=1.0, help="standard deviation of the noise")
    parser.add_argument("--samples", type=int, default=1, help="samples near each molecule")
    parser.add_argument("--prior", type=int, default=1000, help="samples from the prior")
    parser.add_argument("--seed", type=int, default=1234)
    return parser.parse_args()


def main() -> None:
    """Print the table."""
    arguments, started, registry = arguments_of_call(), time.perf_counter(), load_registry()
    device, dtype = arguments.device, DTYPES[arguments.device]
    opened = open_model(str(arguments.run), registry, device=device, dtype=dtype)
    inference = Seq2SeqInference.of(opened, batch_size=BATCH_SIZES[device])
    molecules = held_out(arguments, inference, registry)
    rows = [
        accuracy_row(token_hits(inference, molecules.smiles, device)),
        *reconstruction_rows(inference, molecules.smiles),
        *sampling_rows(inference, molecules, arguments),
    ]
    known = "unknown" if molecules.known is None else f"of {len(molecules.known):,} different ones"
    print(f"{opened.spec.model.name}, step {opened.facts.get('step', 'unknown')}, {dtype} on {device}")
    print(f"{len(molecules.smiles):,} molecules of {arguments.data or 'the test split'}; training split {known}")
    for reason, number in molecules.left_out.items():
        print(f"left out: {number:,} {reason}")
    print_table(rows)
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
