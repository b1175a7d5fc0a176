"""The data component of USPTO-50K, the reactions that retrosynthesis is compared on, by its public layout.

No `from __future__ import annotations` and no unions but `Optional` here: the configuration reads these signatures.
"""

from typing import Optional

from bionemo_core.protocols import BuildContext, DataSplits, Tokenizer
from bionemo_core.ranges import Count

FILES = "raw_train.csv", "raw_val.csv", "raw_test.csv"
COLUMN = "reactants>reagents>production"


def uspto50k(
    path: str,
    direction: str = "backward",
    canonicalize: bool = True,
    on_invalid: str = "skip",
    max_length: Optional[Count] = None,
    deduplicate: bool = False,
    *,
    tokenizer: Tokenizer,
    context: BuildContext,
) -> DataSplits:
    """Read USPTO-50K (Schneider et al. 2016) in the split of Dai et al. 2019, with atom maps left out.

    The tables have the columns `class`, `id` and `reactants>reagents>production`. Ids are those of patents, which have
    several reactions, so a reaction is named by its file and line.

    Args:
        path: a folder with raw_train.csv, raw_val.csv and raw_test.csv, or its http(s) or ftp address; files of an
            address are downloaded once.
        direction: backward, product to reactants; or forward.
        canonicalize: store RDKit's canonical SMILES.
        on_invalid: action for a molecule that is none, a token that the tokenizer lacks, or a reaction that is none:
            skip the reaction, error, or unk to keep the token.
        max_length: reject reactions with a longer source or target, in tokens; null: keep them all (training cuts).
        deduplicate: keep one of several identical reactions of a split.

    Raises:
        ConfigError: an option is out of its range.
        DataError: a file is missing or cannot be read, or on_invalid=error found such a record.
        NetworkError: a download failed.
    """
    from bionemo_core.data.sources.pairs import pairs
    from bionemo_core.data.sources.source_keys import PairRules, PairTables, SplitKeys

    train, val, test = (f"{path.rstrip('/')}/{name}" for name in FILES)
    tables = PairTables(train, val, test, reaction_column=COLUMN, direction=direction)
    rules = PairRules(canonicalize, on_invalid, max_length, deduplicate)
    return pairs(tables, rules, SplitKeys(), tokenizer=tokenizer, context=context)
