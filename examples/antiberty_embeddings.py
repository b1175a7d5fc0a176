"""Embeds antibodies with AntiBERTy's published weights, and compares them with AntiBERTy's own forward pass.

    pip install --no-deps antiberty==0.1.3
    python examples/antiberty_embeddings.py

The package contains the weights. It has no folder of the usual form, so its three files are put into one.
"""

from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray

from bionemo_core import embed
from bionemo_core.interop.torch_pickle import load_tensors

SEQUENCES = (
    "EVQLVQSGPEVKKPGTSVKVSCKASGFTFMSSAVQWVRQARGQRLEWIGWIVIGSGNTNYAQKFQERVTITRDMSTSTAYMELSSLRSEDTAVYYCAA",
    "DVVMTQTPFSLPVSLGDQASISCRSSQSLVHSNGNTYLHWYLQKPGQSPKLLIYKVSNRFSGVPDRFSGSGSGTDFTLKISRVEAEDLGVYFC",
)


def make_folder(target: Path) -> Path:
    """Copy configuration, weights and vocabulary of the package into a folder as transformers knows it.

    Raises:
        ModuleNotFoundError: the package is not installed.
    """
    found = find_spec("antiberty")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("antiberty is not installed. Run: pip install --no-deps antiberty==0.1.3")
    models = Path(found.origin).parent / "trained_models"
    for file in ("AntiBERTy_md_smooth/config.json", "AntiBERTy_md_smooth/pytorch_model.bin", "vocab.txt"):
        shutil.copy(models / file, target)
    return target


@torch.no_grad()
def their_embeddings(folder: Path) -> NDArray[np.float32]:
    """Return the means over residues of the last hidden states, by AntiBERTy's own class and tokenizer."""
    from antiberty import AntiBERTy  # type: ignore[import-not-found]  # in no environment of ours
    from transformers import BertConfig, BertTokenizer

    AntiBERTy.all_tied_weights_keys = {}  # transformers 5 expects it of classes; AntiBERTy's is older
    model = AntiBERTy(BertConfig.from_pretrained(folder)).eval()
    with (folder / "pytorch_model.bin").open("rb") as file:
        weights = load_tensors(file, "pytorch_model.bin")
    weights.pop("bert.embeddings.position_ids")  # counted by today's transformers
    model.load_state_dict(weights)
    tokenizer = BertTokenizer(str(folder / "vocab.txt"), do_lower_case=False)
    means = []
    for sequence in SEQUENCES:
        given = tokenizer(" ".join(sequence), return_tensors="pt")
        states = model(**given, output_hidden_states=True, return_dict=True).hidden_states[-1]
        means.append(states[0, 1:-1].mean(0).numpy())
    return np.stack(means)


def compare() -> float:
    """Return the largest difference between our embeddings and theirs, relative to the largest value."""
    with TemporaryDirectory() as name:
        folder = make_folder(Path(name))
        ours, theirs = embed(str(folder), SEQUENCES), their_embeddings(folder)
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


if __name__ == "__main__":
    difference = compare()
    print(f"largest difference from AntiBERTy's own forward pass: {difference:.1e} of the largest value")
    sys.exit(difference >= 1e-5)
