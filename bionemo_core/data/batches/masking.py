"""The masked-language objective: the tokens that a model must predict, and what replaces them in its input."""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from bionemo_core.data.batches.rng import RecordRng
from bionemo_core.errors import ConfigError
from bionemo_core.protocols import Example

_TO_UNIT = 2.0**-64


class MaskedLanguageObjective:
    """The objective that replaces a share of the tokens, BOS and EOS included, and asks for the originals.

    It follows BioNeMo v1.6 and later: every token is selected with probability `modify_percent`, and at least one is.
    One random number decides whether a selected token is masked, perturbed or kept; a perturbed one becomes another
    token that is not special. All selected tokens count in the loss, the kept ones too.
    """

    def __init__(
        self,
        *,
        mask_id: int,
        special_ids: Collection[int],
        vocab_size: int,
        modify_percent: float = 0.15,
        mask_percent: float = 0.8,
        perturb_percent: float = 0.1,
        identity_percent: float = 0.1,
    ) -> None:
        """Check the shares, and list the tokens that a perturbation may use.

        Raises:
            ConfigError: a share is outside 0 to 1, or the last three do not sum to 1.
        """
        shares = {
            "modify_percent": modify_percent,
            "mask_percent": mask_percent,
            "perturb_percent": perturb_percent,
            "identity_percent": identity_percent,
        }
        for key, value in shares.items():
            if not 0 <= value <= 1:
                raise ConfigError(f"model.{key}: {value} is not a share, expected a number from 0 to 1.")
        total = mask_percent + perturb_percent + identity_percent
        if abs(total - 1) > 1e-6:
            raise ConfigError(
                f"model.mask_percent {mask_percent} + perturb_percent {perturb_percent} + identity_percent "
                f"{identity_percent} = {total:g}, expected 1. Change them so that they sum to 1."
            )
        ordinary = np.array([i for i in range(vocab_size) if i not in special_ids], dtype=np.int32)
        if perturb_percent > 0 and len(ordinary) < 2:
            raise ConfigError(
                f"model.perturb_percent: {perturb_percent}, but the tokenizer has {len(ordinary)} ordinary tokens "
                "and a perturbation needs at least 2. Set it to 0."
            )
        self.modify_percent = modify_percent
        self.mask_percent = mask_percent
        self.perturb_percent = perturb_percent
        self.mask_id = mask_id
        self._threshold = np.uint64(min(int(modify_percent * 2.0**64), 2**64 - 1))
        self._ordinary = ordinary
        # The rank of each id among the ordinary ids; special ids get one past the end.
        self._rank = np.full(vocab_size, len(ordinary), dtype=np.int64)
        self._rank[ordinary] = np.arange(len(ordinary))

    def example(self, ids: NDArray[np.int32], draw: RecordRng) -> Example:
        """Make the example for `ids`, BOS and EOS included, shape [tokens]; `draw` makes all random choices."""
        return self.examples([ids], [draw])[0]

    def examples(self, ids: Sequence[NDArray[np.int32]], rngs: Sequence[RecordRng]) -> list[Example]:
        """Make the examples of several records at once; each depends on its own ids and rng only.

        One random word per token decides whether it is selected. Rescaled to [0, 1) for a selected token, the same word
        decides what happens to it and which token replaces it. Two more words are for a record without a selected
        token: they select one, and decide what happens to it.
        """
        lengths = [len(record_ids) for record_ids in ids]
        ends = np.cumsum(lengths)
        starts = ends - lengths
        record_words = [rng.words(length + 2) for rng, length in zip(rngs, lengths, strict=True)]
        words = np.concatenate([own[:-2] for own in record_words])
        labels = np.concatenate(ids)
        loss_mask = words < self._threshold
        selected = np.flatnonzero(loss_mask)
        if self.modify_percent > 0:
            fate = words[selected] * (_TO_UNIT / self.modify_percent)
            unselected = np.flatnonzero(np.searchsorted(selected, starts) == np.searchsorted(selected, ends)).tolist()
            numbers = [i for i in unselected if lengths[i]]
            if numbers:
                places = [starts[i] + _scale(record_words[i][-2], lengths[i]) for i in numbers]
                loss_mask[places] = True
                selected = np.concatenate([selected, places])
                fate = np.concatenate([fate, [record_words[i][-1] * _TO_UNIT for i in numbers]])
            tokens = self._replace_tokens(labels, selected, fate)
        else:
            tokens = labels
        bounds = zip(starts.tolist(), ends.tolist(), strict=True)
        return [Example(tokens[a:b], labels[a:b], loss_mask[a:b]) for a, b in bounds]

    def _replace_tokens(
        self, ids: NDArray[np.int32], selected: NDArray[np.int64], fate: NDArray[np.float64]
    ) -> NDArray[np.int32]:
        """Replace the selected tokens; `fate` has a number in [0, 1) for each."""
        tokens = ids.copy()
        tokens[selected[fate < self.mask_percent]] = self.mask_id
        perturbed = np.flatnonzero((fate >= self.mask_percent) & (fate < self.mask_percent + self.perturb_percent))
        if perturbed.size:
            places = selected[perturbed]
            tokens[places] = self._draw_other(ids[places], (fate[perturbed] - self.mask_percent) / self.perturb_percent)
        return tokens

    def _draw_other(self, ids: NDArray[np.int32], uniform: NDArray[np.floating]) -> NDArray[np.int32]:
        """Return another ordinary token for each of `ids`: choose from one fewer, and skip the token itself."""
        rank = self._rank[ids]
        is_ordinary = rank < len(self._ordinary)
        count = len(self._ordinary) - is_ordinary
        number = np.minimum((uniform * count).astype(np.int64), count - 1)
        replaced: NDArray[np.int32] = self._ordinary[number + (is_ordinary & (number >= rank))]
        return replaced


def _scale(word: np.uint64, count: int) -> int:
    """Map a random word to 0 .. count - 1."""
    return min(int(word * _TO_UNIT * count), count - 1)
