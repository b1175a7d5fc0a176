"""The masked-language rule of v1.6: how many, what becomes of them, and what never happens."""

import numpy as np
import pytest

from bionemo_core.data.draw import Draw
from bionemo_core.data.masking import MaskedLanguageObjective
from bionemo_core.data.tokenizer import CharacterTokenizer
from bionemo_core.errors import ConfigError


def test_shares_are_those_asked_for(tokenizer: CharacterTokenizer, objective: MaskedLanguageObjective) -> None:
    ids = np.random.default_rng(0).integers(5, 30, 400).astype(np.int32)
    ids[0], ids[-1] = tokenizer.bos_id, tokenizer.eos_id
    examples = [objective.example(ids, Draw(0, 0, i, "m")) for i in range(1000)]
    tokens, chosen = np.stack([e.tokens for e in examples]), np.stack([e.loss_mask for e in examples])
    assert abs(chosen.mean() - 0.15) < 0.002
    assert abs((tokens == tokenizer.mask_id)[chosen].mean() - 0.8) < 0.006
    changed = (tokens != ids) & (tokens != tokenizer.mask_id)
    assert abs(changed[chosen].mean() - 0.1) < 0.005
    assert abs(chosen[:, 0].mean() - 0.15) < 0.04  # BOS takes part
    assert not np.isin(tokens[changed], list(tokenizer.special_ids)).any()
    replacements = np.bincount(tokens[changed], minlength=30)[5:]
    assert replacements.min() > 0.7 * replacements.mean()


def test_one_token_is_always_chosen() -> None:
    objective = MaskedLanguageObjective(mask_id=4, special_ids=range(5), vocab_size=30, modify_percent=1e-9)
    places = [objective.example(np.arange(5, 9, dtype=np.int32), Draw(0, 0, i, "m")).loss_mask for i in range(400)]
    assert {int(place.sum()) for place in places} == {1}
    assert np.stack(places).mean(axis=0).min() > 0.15


def test_nothing_is_chosen_at_zero() -> None:
    objective = MaskedLanguageObjective(mask_id=4, special_ids=range(5), vocab_size=30, modify_percent=0)
    example = objective.example(np.arange(5, 30, dtype=np.int32), Draw(0, 0, 0, "m"))
    assert not example.loss_mask.any()
    assert (example.tokens == example.labels).all()


def test_shares_must_sum_to_one() -> None:
    with pytest.raises(ConfigError, match=r"= 1.1, expected 1"):
        MaskedLanguageObjective(mask_id=4, special_ids=range(5), vocab_size=30, mask_percent=0.9)
    with pytest.raises(ConfigError, match=r"modify_percent: 1.5"):
        MaskedLanguageObjective(mask_id=4, special_ids=range(5), vocab_size=30, modify_percent=1.5)
