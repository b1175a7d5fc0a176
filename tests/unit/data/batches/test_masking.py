"""The masked-language rule of v1.6: how many tokens are selected, and what happens to them."""

import numpy as np
import pytest

from bionemo_core.data.batches.masking import MaskedLanguageObjective
from bionemo_core.data.batches.rng import RecordRng
from bionemo_core.data.tokenizer import CharacterTokenizer
from bionemo_core.errors import ConfigError


def test_shares_are_those_asked_for(tokenizer: CharacterTokenizer, objective: MaskedLanguageObjective) -> None:
    ids = np.random.default_rng(0).integers(5, 30, 400).astype(np.int32)
    ids[0], ids[-1] = tokenizer.bos_id, tokenizer.eos_id
    examples = [objective.example(ids, RecordRng(0, 0, i, "m")) for i in range(1000)]
    tokens, chosen = np.stack([e.tokens for e in examples]), np.stack([e.loss_mask for e in examples])
    assert abs(chosen.mean() - 0.15) < 0.002
    assert abs((tokens == tokenizer.mask_id)[chosen].mean() - 0.8) < 0.006
    changed = (tokens != ids) & (tokens != tokenizer.mask_id)
    assert abs(changed[chosen].mean() - 0.1) < 0.005
    assert abs(chosen[:, 0].mean() - 0.15) < 0.04  # BOS takes part
    assert not np.isin(tokens[changed], list(tokenizer.special_ids)).any()
    replacements = np.bincount(tokens[changed], minlength=30)[5:]
    assert replacements.min() > 0.7 * replacements.mean()


@pytest.mark.parametrize("modify_percent", [0.15, 0.01, 1e-9, 0.0, 1.0])
def test_masks_do_not_depend_on_the_company(modify_percent: float) -> None:
    """Records masked together get what the rule, spelt out for one token after the other, gives each alone."""
    objective = MaskedLanguageObjective(mask_id=4, special_ids=range(5), vocab_size=30, modify_percent=modify_percent)
    rng = np.random.default_rng(0)
    records = [rng.integers(0, 30, length).astype(np.int32) for length in [*rng.integers(1, 60, 100), 0]]
    together = objective.examples(records, [RecordRng(9, 2, i, "m") for i in range(len(records))])
    for number, (ids, example) in enumerate(zip(records, together, strict=True)):
        words = [int(word) / 2**64 for word in RecordRng(9, 2, number, "m").words(len(ids) + 2)]
        fates = {i: words[i] / modify_percent for i in range(len(ids)) if words[i] < modify_percent}
        if not fates and modify_percent and len(ids):
            fates = {int(words[-2] * len(ids)): words[-1]}
        tokens = ids.tolist()
        for place, fate in fates.items():
            others = [token for token in range(5, 30) if token != ids[place]]
            if fate < 0.8:
                tokens[place] = 4
            elif fate < 0.9:
                tokens[place] = others[int((fate - 0.8) / 0.1 * len(others))]
        assert example.tokens.tolist() == tokens
        assert np.flatnonzero(example.loss_mask).tolist() == sorted(fates)
        assert example.labels.tolist() == ids.tolist()


def test_one_token_is_always_chosen() -> None:
    objective = MaskedLanguageObjective(mask_id=4, special_ids=range(5), vocab_size=30, modify_percent=1e-9)
    places = [objective.example(np.arange(5, 9, dtype=np.int32), RecordRng(0, 0, i, "m")).loss_mask for i in range(400)]
    assert {int(place.sum()) for place in places} == {1}
    assert np.stack(places).mean(axis=0).min() > 0.15


def test_nothing_is_chosen_at_zero() -> None:
    objective = MaskedLanguageObjective(mask_id=4, special_ids=range(5), vocab_size=30, modify_percent=0)
    example = objective.example(np.arange(5, 30, dtype=np.int32), RecordRng(0, 0, 0, "m"))
    assert not example.loss_mask.any()
    assert (example.tokens == example.labels).all()


def test_shares_must_sum_to_one() -> None:
    with pytest.raises(ConfigError, match=r"= 1.1, expected 1"):
        MaskedLanguageObjective(mask_id=4, special_ids=range(5), vocab_size=30, mask_percent=0.9)
    with pytest.raises(ConfigError, match=r"modify_percent: 1.5"):
        MaskedLanguageObjective(mask_id=4, special_ids=range(5), vocab_size=30, modify_percent=1.5)
