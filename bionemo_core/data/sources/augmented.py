"""The data component `augmented`: another one, whose training records are changed at random in each pass.

Numpy is imported in the bodies, because listing the components must stay quick. The configuration reads the signature.
"""

from collections.abc import Mapping
from typing import Any, Optional

from bionemo_core.errors import ConfigError
from bionemo_core.protocols import Augmentation, BuildContext, DataSplits, Tokenizer


def augmented(
    source: Any,
    augmentations: list[Any],
    sides: Optional[str] = None,
    *,
    tokenizer: Tokenizer,
    context: BuildContext,
    registry: Any,
) -> DataSplits:
    """Change the training records of a data component at random; validation and test splits stay as they are.

    Args:
        source: the data component: a name, a FASTA file, or `{data: NAME, KEY: VALUE}`.
        augmentations: the changes, in their order; each is a name, or `{augmentation: NAME, KEY: VALUE}`.
        sides: of pairs, the texts that are changed: source (null), target or both.

    Raises:
        ConfigError: a component is not valid or refuses its parameters, or the records have labels.
        DataError: the files of the source cannot be read.
    """
    from bionemo_core.data.sources.augmented_records import SIDES, AugmentedPairs, AugmentedRecords
    from bionemo_core.data.sources.blend import build_source
    from bionemo_core.io.hashing import fingerprint_of

    if not augmentations:
        raise ConfigError("data.augmentations: is empty. Name at least one, or use the source itself as data.")
    splits = build_source("data.source", source, registry, tokenizer, context)
    pairs = bool(getattr(splits.train, "pairs", False))
    if hasattr(splits.train, "labels"):
        raise ConfigError("data.source: its records have labels, which an augmentation would not follow.")
    if sides is not None and (not pairs or sides not in SIDES):
        expected = f"expected one of {', '.join(SIDES)}" if pairs else "the records of data.source are no pairs"
        raise ConfigError(f"data.sides: got {sides!r}, {expected}.")
    read = [_read(number, one, registry) for number, one in enumerate(augmentations)]
    changes: list[Augmentation] = [registry.build(choice, tokenizer=tokenizer, context=context) for choice in read]
    described = [[choice.distribution, choice.name, sorted(choice.params.items())] for choice in read]
    of_pairs = [sides or "source"] if pairs else []
    fingerprint = fingerprint_of([splits.fingerprint, described, *of_pairs]) if splits.fingerprint else ""
    train: AugmentedRecords
    if pairs:
        train = AugmentedPairs(splits.train, changes, tokenizer, sides or "source")
    else:
        train = AugmentedRecords(splits.train, changes, tokenizer)
    return DataSplits(train, splits.val, splits.test, fingerprint)


def _read(number: int, given: Any, registry: Any) -> Any:
    from bionemo_core.config.schema import Choice

    where = f"data.augmentations[{number}]"
    chosen = {"augmentation": given} if isinstance(given, str) else given
    if not isinstance(chosen, Mapping) or not isinstance(chosen.get("augmentation"), str):
        raise ConfigError(f"{where}: {given!r} names none. Write it as {{augmentation: NAME, KEY: VALUE}}.")
    try:
        found = registry.get("augmentation", chosen["augmentation"])
        params = found.complete({str(key): value for key, value in chosen.items() if key != "augmentation"})
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    return Choice("augmentation", found.name, params, found.distribution, found.version)
