"""The data component `sample`.

No `from __future__ import annotations` and no unions but `Optional` here: the configuration reads these signatures.
Numpy and pyarrow are imported in the bodies, because listing the components must stay quick.
"""

from collections.abc import Sequence
from importlib.resources import as_file, files

from bionemo_core.protocols import BuildContext, DataSplits, Tokenizer
from bionemo_core.ranges import Natural


class _Texts(list[str]):
    """Texts with their numbers of tokens, which packing and the plan of a run ask for."""

    def __init__(self, texts: Sequence[str], tokenizer: Tokenizer) -> None:
        import numpy as np

        super().__init__(texts)
        self.lengths = np.array([len(tokenizer.encode(text)) for text in texts], dtype=np.int32)


def sample(
    seed: Natural = 0,
    val_size: Natural = 32,
    test_size: Natural = 32,
    *,
    tokenizer: Tokenizer,
    context: BuildContext,
) -> DataSplits:
    """Read 512 UniProt proteins that ship with the core, or the sample of the tokenizer: enough to try a model.

    A tokenizer of another alphabet may have a sample of its own, `sample_texts`.

    Args:
        seed: the seed of the split.
        val_size: the number of validation records.
        test_size: the number of test records.

    Raises:
        ConfigError: the two sizes leave nothing to train on.
        DataError: the tokenizer's alphabet lacks a residue of the proteins.
    """
    from bionemo_core.data.readers import FastaSource
    from bionemo_core.data.splits.indices import split_at_random
    from bionemo_core.data.store.prepare import prepare
    from bionemo_core.data.store.residue_filter import ResidueFilter
    from bionemo_core.io.hashing import fingerprint_of

    if hasattr(tokenizer, "sample_texts"):
        texts = list(tokenizer.sample_texts())
        split = split_at_random(len(texts), val_size, test_size, seed)
        chosen = [[texts[index] for index in part] for part in (split.train, split.val, split.test)]
        train, val, test = (_Texts(part, tokenizer) for part in chosen)
        return DataSplits(train, val or None, test or None, fingerprint_of(chosen))
    with as_file(files("bionemo_core.data") / "sample" / "uniprot_sample_512.fasta") as path:
        advice = (
            "Choose another tokenizer (tokenizer=...), or your own data with data=fasta data.path=...; for a model that"
            " reads something else, such as molecules, use the data of its plugin: data=smiles data.path=... "
            "An author gives a tokenizer sample_texts()."
        )
        rules = ResidueFilter.of(tokenizer, on_invalid="error", advice=advice)
        store = prepare(FastaSource(path), rules, context)
    parts = split_at_random(len(store), val_size, test_size, seed)
    return parts.of(store)
