"""Does a pre-trained model know more than residue frequencies? Masked-residue loss against two baselines.

Evaluates a run of `bionemo-run` on its own validation split, on residues that were replaced by `<mask>` only
(not the kept and perturbed ones, and no BOS or EOS), in nats:

- model: cross entropy of the model's prediction;
- unigram: minus log of the residue's frequency in the training split;
- composition: minus log of the residue's frequency in its own protein, from the residues left visible (add-one
  smoothing, scaled by the training frequencies), and, harder, from the whole protein, hidden residues included.

Standard errors treat proteins as independent, not residues.

    bionemo-run cluster uniprot_16k.fasta.gz clusters.tsv
    bionemo-run model=esm1nv_tiny data=fasta data.path=uniprot_16k.fasta.gz data.clusters=clusters.tsv ...
    python benchmarks/learning.py RUN_FOLDER [--checkpoint step-00001000]
"""

import argparse
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from bionemo_core.builtin import load_registry
from bionemo_core.checkpoint.load import open_checkpoint, open_newest_valid
from bionemo_core.config.schema import RunSpec
from bionemo_core.config.spec import from_json
from bionemo_core.data.batches.loader import LoaderSettings, eval_loader
from bionemo_core.parallel.groups import start_groups
from bionemo_core.parallel.layout import read_layouts
from bionemo_core.parallel.weights import load_weights
from bionemo_core.protocols import BuildContext


class Scores(NamedTuple):
    """Sums over one protein's masked residues, in nats."""

    residues: int
    model: float
    unigram: float
    visible: float
    whole: float


def frequencies(records, tokenizer) -> np.ndarray:
    """Share of every token among the residues of these records."""
    counts = np.zeros(tokenizer.vocab_size)
    for index in range(len(records)):
        counts += np.bincount(tokenizer.encode(records[index]), minlength=tokenizer.vocab_size)
    return counts / counts.sum()


def score_pack(log_probabilities, batch, tokenizer, unigram: np.ndarray) -> list[Scores]:
    """The scores of every protein of one packed row; `log_probabilities` has shape [length, vocabulary]."""
    scores, start = [], 0
    for length in batch.lengths:
        span = slice(start, start + length)
        start += length
        tokens, labels = batch.tokens[0, span].cpu().numpy(), batch.labels[0, span].cpu().numpy()
        special = np.isin(labels, list(tokenizer.special_ids))
        masked = (tokens == tokenizer.mask_id) & batch.loss_mask[0, span].cpu().numpy() & ~special
        if not masked.any():
            continue
        truth, hidden = labels[masked], log_probabilities[span][torch.from_numpy(masked)]
        shown = np.bincount(labels[~masked & ~special], minlength=tokenizer.vocab_size) + 20 * unigram
        whole = np.bincount(labels[~special], minlength=tokenizer.vocab_size)
        scores.append(
            Scores(
                len(truth),
                -float(hidden[torch.arange(len(truth)), torch.from_numpy(truth)].sum()),
                -float(np.log(unigram[truth]).sum()),
                -float(np.log(shown[truth] / shown.sum()).sum()),
                -float(np.log(whole[truth] / whole.sum()).sum()),
            )
        )
    return scores


def mean_and_error(sums: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """The mean per residue and its standard error over proteins (ratio estimator)."""
    mean = sums.sum() / counts.sum()
    residuals = sums - mean * counts
    n = len(counts)
    return float(mean), math.sqrt(n / (n - 1) * (residuals**2).sum()) / float(counts.sum())


@torch.no_grad()
def evaluate(folder: Path, checkpoint: str | None, device: str) -> tuple[int, list[Scores]]:
    """The step evaluated, and the scores of every validation protein."""
    spec: RunSpec = from_json((folder / "run.json").read_text())
    registry, context = load_registry(), BuildContext(seed=spec.seed, device=device, home=spec.home)
    tokenizer = registry.build(spec.tokenizer, context=context)
    splits = registry.build(spec.data, tokenizer=tokenizer, context=context)
    module = registry.build(spec.model, tokenizer=tokenizer, context=context)
    groups, network = start_groups(), module.network
    root = folder / "checkpoints"
    reader = open_checkpoint(root / checkpoint) if checkpoint else open_newest_valid(root)[0]
    load_weights(network, read_layouts(network, groups), groups, reader)
    network.eval().to(device)
    unigram = np.maximum(frequencies(splits.train, tokenizer), 1e-9)
    loader = eval_loader(
        splits.val,
        tokenizer,
        module.objective,
        LoaderSettings(
            seq_length=spec.batch.seq_length or module.seq_length,
            micro_batch_size=1 if device == "cpu" else 16,
            global_batch_size=1 if device == "cpu" else 16,
            seed=spec.seed,
        ),
    )
    scores = []
    for step in loader:
        for batch in step.micro_batches:
            logits = network.logits(batch.to(device))[0, :, : tokenizer.vocab_size].float().cpu()
            scores += score_pack(logits.log_softmax(-1), batch, tokenizer, unigram)
    return reader.step, scores


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--checkpoint", help="step-NNNNNNNN; the newest by default")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    step, scores = evaluate(arguments.folder, arguments.checkpoint, arguments.device)
    table = np.array(scores, dtype=np.float64)
    counts, columns = table[:, 0], dict(zip(Scores._fields[1:], table.T[1:], strict=True))
    print(f"step {step}: {len(scores):,} proteins, {int(counts.sum()):,} masked residues; nats a residue")
    for name, sums in columns.items():
        mean, error = mean_and_error(sums, counts)
        gain, gain_error = mean_and_error(sums - columns["model"], counts)
        above = "" if name == "model" else f"   model is lower by {gain:.4f} +- {gain_error:.4f}"
        print(f"{name:>12}  {mean:.4f} +- {error:.4f}{above}")


if __name__ == "__main__":
    main()
