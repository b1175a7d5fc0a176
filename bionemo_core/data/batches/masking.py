"""The masked-language objective: which tokens a model must guess, and what it sees in their place."""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from bionemo_core.data.batches.rng import RecordRng
from bionemo_core.errors import ConfigError
from bionemo_core.protocols import Example

_TO_UNIT = 2.0**-64


class MaskedLanguageObjective:
    """Replaces a share of the tokens, BOS and EOS included, and asks for the originals.

    The rule of BioNeMo v1.6 and later: every token is chosen with probability `modify_percent`, at least one is.
    A chosen token is masked, perturbed or kept by one draw; a perturbed one becomes another token that is not
    special. The loss lies on all chosen tokens, on the kept ones too.
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
        """Check the shares and list the tokens that a perturbation may choose.

        Raises:
            ConfigError: a share lies outside 0 to 1, or the last three do not sum to 1.
        """
        shares = {
            "modify_percent": modify_percent,
            "mask_percent": mask_percent,
            "perturb_percent": perturb_percent,
            "identity_percent": identity_percent,
        }
        for key, value in shares.items():
            if not 0 <= value <= 1:
                raise ConfigError(f"model.{key}: {value} is not a share. Give a number from 0 to 1.")
        total = mask_percent + perturb_percent + identity_percent
        if abs(total - 1) > 1e-6:
            raise ConfigError(
                f"model.mask_percent {mask_percent} + perturb_percent {perturb_percent} + identity_percent "
                f"{identity_percent} = {total:g}, expected 1: they say what becomes of each chosen token."
            )
        ordinary = np.array([i for i in range(vocab_size) if i not in special_ids], dtype=np.int32)
        if perturb_percent > 0 and len(ordinary) < 2:
            raise ConfigError(
                f"model.perturb_percent: {perturb_percent}, but the tokenizer has {len(ordinary)} ordinary tokens "
                "and a perturbation needs another one. Set it to 0."
            )
        self.modify_percent = modify_percent
        self.mask_percent = mask_percent
        self.perturb_percent = perturb_percent
        self.mask_id = mask_id
        self._threshold = np.uint64(min(int(modify_percent * 2.0**64), 2**64 - 1))
        self._ordinary = ordinary
        # The place of each id among the ordinary ones; special ids get one past the end.
        self._rank = np.full(vocab_size, len(ordinary), dtype=np.int64)
        self._rank[ordinary] = np.arange(len(ordinary))

    def example(self, ids: NDArray[np.int32], draw: RecordRng) -> Example:
        """The example for `ids`, BOS and EOS included, shape [tokens]; every random choice comes from `draw`."""
        return self.examples([ids], [draw])[0]

    def examples(self, ids: Sequence[NDArray[np.int32]], draws: Sequence[RecordRng]) -> list[Example]:
        """The examples of several records, each a function of its own ids and draw, made in one go.

        One random word a token decides everything: whether it is chosen, and, stretched to [0, 1) given that it
        was, what becomes of it and which token replaces it. Two more words serve a record of which no token was
        chosen: they name one, and decide its fate.
        """
        lengths = [len(one) for one in ids]
        ends = np.cumsum(lengths)
        starts = ends - lengths
        drawn = [draw.words(length + 2) for draw, length in zip(draws, lengths, strict=True)]
        words = np.concatenate([own[:-2] for own in drawn])
        labels = np.concatenate(ids)
        loss_mask = words < self._threshold
        chosen = np.flatnonzero(loss_mask)
        if self.modify_percent > 0:
            fate = words[chosen] * (_TO_UNIT / self.modify_percent)
            bare = np.flatnonzero(np.searchsorted(chosen, starts) == np.searchsorted(chosen, ends)).tolist()
            named = [(starts[i] + min(int(drawn[i][-2] * _TO_UNIT * n), n - 1), i) for i in bare if (n := lengths[i])]
            if named:
                places, numbers = (list(column) for column in zip(*named, strict=True))
                loss_mask[places] = True
                chosen = np.concatenate([chosen, places])
                fate = np.concatenate([fate, [drawn[i][-1] * _TO_UNIT for i in numbers]])
            tokens = self._changed(labels, chosen, fate)
        else:
            tokens = labels
        bounds = zip(starts.tolist(), ends.tolist(), strict=True)
        return [Example(tokens[a:b], labels[a:b], loss_mask[a:b]) for a, b in bounds]

    def _changed(
        self, ids: NDArray[np.int32], chosen: NDArray[np.int64], fate: NDArray[np.float64]
    ) -> NDArray[np.int32]:
        """The ids after each chosen one met its fate, a number in [0, 1)."""
        tokens = ids.copy()
        tokens[chosen[fate < self.mask_percent]] = self.mask_id
        perturbed = np.flatnonzero((fate >= self.mask_percent) & (fate < self.mask_percent + self.perturb_percent))
        if perturbed.size:
            places = chosen[perturbed]
            tokens[places] = self._another(ids[places], (fate[perturbed] - self.mask_percent) / self.perturb_percent)
        return tokens

    def _another(self, ids: NDArray[np.int32], uniform: NDArray[np.floating]) -> NDArray[np.int32]:
        """An ordinary token for each of `ids` that differs from it: draw from one fewer, then step over it."""
        rank = self._rank[ids]
        is_ordinary = rank < len(self._ordinary)
        count = len(self._ordinary) - is_ordinary
        drawn = np.minimum((uniform * count).astype(np.int64), count - 1)
        replaced: NDArray[np.int32] = self._ordinary[drawn + (is_ordinary & (drawn >= rank))]
        return replaced
