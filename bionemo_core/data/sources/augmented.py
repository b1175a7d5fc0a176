"""The data component `augmented`: another one, whose training records are changed at random in each pass.

Numpy is imported in the bodies, because listing the components must stay quick. The configuration reads the signature.
"""

from collections.abc import Mapping
from dataclasses import replace
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
        sides: of pairs, the texts that are changed: source (null), target or both; of labelled pairs first (null),
            second or both.

    Raises:
        ConfigError: a component is not valid or refuses its parameters.
        DataError: the files of the source cannot be read.
    """
    from bionemo_core.data.augmented_labels import AugmentedLabels
    from bionemo_core.data.labelled_records import LabelledSplits
    from bionemo_core.data.sources.augmented_records import AugmentedPairs, AugmentedRecords
    from bionemo_core.data.sources.blend import build_source
    from bionemo_core.io.hashing import fingerprint_of

    if not augmentations:
        raise ConfigError("data.augmentations: is empty. Name at least one, or use the source itself as data.")
    splits = build_source("data.source", source, registry, tokenizer, context)
    labelled = splits if isinstance(splits, LabelledSplits) else None
    pairs = bool(getattr(splits.train, "seconds" if labelled else "pairs", False))
    names = ("first", "second", "both") if labelled else ("source", "target", "both")
    _check_sides(sides, names if pairs else ())
    read = [_read(number, one, registry) for number, one in enumerate(augmentations)]

    def changes_for(reader: Tokenizer) -> tuple[Augmentation, ...]:
        return tuple(registry.build(choice, tokenizer=reader, context=context) for choice in read)

    described = [[choice.distribution, choice.name, sorted(choice.params.items())] for choice in read]
    of_pairs = [sides or names[0]] if pairs else []
    fingerprint = fingerprint_of([splits.fingerprint, described, *of_pairs]) if splits.fingerprint else ""
    if labelled:
        readers = tokenizer, getattr(tokenizer, "second_tokenizer", tokenizer)
        places = (0, 1) if sides == "both" else (names.index(sides or names[0]),)
        train_labels = AugmentedLabels.of_records(labelled.train, {side: changes_for(readers[side]) for side in places})
        return replace(labelled, train=train_labels, fingerprint=fingerprint)
    given = splits.train, changes_for(tokenizer), tokenizer
    train = AugmentedPairs(*given, sides or "source") if pairs else AugmentedRecords(*given)
    return DataSplits(train, splits.val, splits.test, fingerprint)


def _check_sides(sides: str | None, names: tuple[str, ...]) -> None:
    if sides is not None and sides not in names:
        expected = f"expected one of {', '.join(names)}" if names else "the records of data.source are no pairs"
        raise ConfigError(f"data.sides: got {sides!r}, {expected}.")


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
