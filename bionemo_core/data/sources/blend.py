"""The data component `blend`: several data components, blended by weight.

Numpy is imported in the bodies, because listing the components must stay quick. The configuration reads the signature.
"""

import logging
from collections.abc import Mapping
from typing import Any, Optional

from bionemo_core.errors import ConfigError
from bionemo_core.plurals import format_count
from bionemo_core.protocols import BuildContext, DataSplits, Tokenizer
from bionemo_core.ranges import NotNegative

log = logging.getLogger("bionemo")


def blend(
    parts: list[Any],
    weights: Optional[list[NotNegative]] = None,
    *,
    tokenizer: Tokenizer,
    context: BuildContext,
    registry: Any,
) -> DataSplits:
    """Blend several data components by weight for training; concatenate their validation and test splits.

    Args:
        parts: the data components; each is a name, a FASTA file, or `{data: NAME, KEY: VALUE}`.
        weights: the relative weight of each part; null: equal weights.

    Raises:
        ConfigError: a part is not valid, its component refuses its parameters, or a weight is not positive.
        DataError: a part's files cannot be read.
    """
    from bionemo_core.data.sources.blended_records import BlendedRecords, JoinedRecords, cycle_shares
    from bionemo_core.io.hashing import fingerprint_of

    if not parts:
        raise ConfigError("data.parts: is empty. Name at least one part, as in data.parts=[a.fasta,sample].")
    weights = [1.0] * len(parts) if weights is None else weights
    if len(weights) != len(parts):
        number, wanted = format_count(len(weights), "number"), format_count(len(parts), "part")
        raise ConfigError(f"data.weights: has {number}, expected one for each of {wanted}.")
    shares = cycle_shares(weights)
    built = [
        build_source(f"data.parts[{number}]", part, registry, tokenizer, context) for number, part in enumerate(parts)
    ]
    if len({bool(getattr(splits.train, "pairs", False)) for splits in built}) > 1:
        raise ConfigError("data.parts: pairs and single sequences cannot be blended. Name parts of one kind.")
    for part, splits, share in zip(parts, built, shares, strict=True):
        number = format_count(len(splits.train), "sequence")
        log.info("Blend: %.4g %% from %s of %s.", 100 * share / sum(shares), number, part)
    prints = [(splits.fingerprint, share) for splits, share in zip(built, shares, strict=True)]
    val = [splits.val for splits in built if splits.val is not None]
    test = [splits.test for splits in built if splits.test is not None]
    return DataSplits(
        BlendedRecords([splits.train for splits in built], shares),
        JoinedRecords(val) if val else None,
        JoinedRecords(test) if test else None,
        fingerprint_of(prints) if all(one for one, _ in prints) else "",
    )


def build_source(where: str, part: Any, registry: Any, tokenizer: Tokenizer, context: BuildContext) -> DataSplits:
    """Build a data component that is a part of another; `where` is the user's key for it.

    Raises:
        ConfigError: it is neither a name, a FASTA file nor `{data: NAME, KEY: VALUE}`, or its parameters are invalid.
    """
    from bionemo_core.config.schema import Choice

    if isinstance(part, str):
        names_file = registry.find("data", part) is None and ("." in part or "/" in part)
        part = {"data": "fasta", "path": part} if names_file else {"data": part}
    if not isinstance(part, Mapping) or not isinstance(part.get("data"), str):
        raise ConfigError(f"{where}: {part!r} does not name a data component. Write it as {{data: NAME, KEY: VALUE}}.")
    params = {str(key): value for key, value in part.items() if key != "data"}
    try:
        splits: DataSplits = registry.build(Choice("data", part["data"], params), tokenizer=tokenizer, context=context)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    return splits
