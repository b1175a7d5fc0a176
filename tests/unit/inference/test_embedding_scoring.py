"""Scores of mutations against their definition, computed with one padded row for each set of masks."""

import numpy as np
import pytest
import torch

from bionemo_core.data.batches.batch import TokenBatch
from bionemo_core.data.batches.rows import RowShape, collate
from bionemo_core.errors import ConfigError, DataError, NonFiniteError
from bionemo_core.inference.embedding import Embedder
from bionemo_core.inference.scoring import MASKED, WILD_TYPE, MaskedScorer, Mutation, read_variant
from bionemo_core.protocols import BuildContext, Example

presets = pytest.importorskip("bionemo_esm.presets")

WILD = "MKTAYIAKQRQ"


@pytest.fixture(scope="module")
def scorer() -> MaskedScorer:
    tokenizer = presets.esm2_alphabet()
    shape = {"num_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "seq_length": 32}
    module = presets.esm2(**shape, tokenizer=tokenizer, context=BuildContext())
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in module.network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return MaskedScorer(module, tokenizer, tokens_per_batch=50)


def predict(scorer: MaskedScorer, masked: list[int]) -> np.ndarray:
    """Return log-probabilities at every residue with these positions masked, from the logits of one padded row."""
    tokenizer = scorer.tokenizer
    ids = np.array([tokenizer.bos_id, *tokenizer.encode(WILD), tokenizer.eos_id], dtype=np.int32)
    ids[np.array(masked, dtype=int) + 1] = tokenizer.mask_id
    shape = RowShape(32, 1, tokenizer.pad_id, packing=False)
    batch = TokenBatch.of(collate([Example(ids, ids, np.zeros(len(ids), dtype=bool))], 1, shape))
    with torch.no_grad():
        logits = scorer.network.eval().logits(batch)[0, 1 : len(ids) - 1, : tokenizer.vocab_size]
    return logits.log_softmax(-1).numpy()


def test_masked_marginals_mask_all_mutated_positions_at_once(scorer):
    variants = [read_variant(text, WILD) for text in ("K2R", "T3V:Q9A", "WT")]
    got = scorer.score_variants(WILD, variants, MASKED)
    token = {letter: int(scorer.tokenizer.encode(letter)[0]) for letter in "KRTVQA"}
    single, both = predict(scorer, [1]), predict(scorer, [2, 8])
    expected = [
        single[1, token["R"]] - single[1, token["K"]],
        both[2, token["V"]] - both[2, token["T"]] + both[8, token["A"]] - both[8, token["Q"]],
        0.0,
    ]
    assert np.allclose(got, expected, atol=1e-5)


def test_wild_type_marginals_mask_nothing(scorer):
    got = scorer.score_variants(WILD, [read_variant("T3V:Q9A", WILD)], WILD_TYPE)
    table = predict(scorer, [])
    token = {letter: int(scorer.tokenizer.encode(letter)[0]) for letter in "TVQA"}
    expected = table[2, token["V"]] - table[2, token["T"]] + table[8, token["A"]] - table[8, token["Q"]]
    assert np.allclose(got, expected, atol=1e-5)


def test_pseudo_likelihood_masks_each_residue_alone(scorer):
    got = scorer.pseudo_log_likelihood(WILD)
    tokens = scorer.tokenizer.encode(WILD)
    expected = [predict(scorer, [position])[position, tokens[position]] for position in range(len(WILD))]
    assert np.allclose(got, expected, atol=1e-5)


def test_copies_have_rows_of_their_own_if_the_model_does_not_declare_packing(scorer):
    packed = scorer.pseudo_log_likelihood(WILD)
    seen = []
    handle = scorer.network.embedding.register_forward_pre_hook(lambda _, arguments: seen.append(arguments))
    scorer.module.capabilities = frozenset()
    try:
        assert np.allclose(scorer.pseudo_log_likelihood(WILD), packed, atol=1e-5)
    finally:
        del scorer.module.capabilities
        handle.remove()
    batches = [one for arguments in seen for one in arguments if isinstance(one, TokenBatch)]
    assert batches
    assert not any(batch.packed for batch in batches)


def test_variants_are_parsed_in_common_notations():
    assert read_variant("k2r", WILD) == [Mutation("K", 1, "R")]
    assert read_variant("WT", WILD) == read_variant("_wt", WILD) == []
    assert read_variant("K102R, T103V", WILD, first_position=101) == [Mutation("K", 1, "R"), Mutation("T", 2, "V")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("K2", "cannot read 'K2'"),
        ("A2G", "the wild type has K at position 2, not A"),
        ("K99R", "position 99 is not within 1 to 11"),
        ("K2R:K2A", "mutated twice"),
        (" ", "is empty, expected mutations such as A24G, or WT"),
    ],
)
def test_a_variant_that_does_not_fit_is_refused(text, message):
    with pytest.raises(DataError, match=message):
        read_variant(text, WILD)


def test_lists_of_sequences_are_read_as_the_command_reads_files(scorer):
    assert scorer.clean(["mkta*\n", b" MK TA"]) == ["MKTA", "MKTA"]
    for given, message in [
        ("MKTA", "got one text"),
        (["MKTA", ""], "sequence 2: empty"),
        (["MKTA", float("nan")], "sequence 2: got nan"),
        (["MK!A"], "sequence 1: residue outside"),
    ]:
        with pytest.raises(DataError, match=message):
            scorer.clean(given)


def test_methods_and_sequences_that_cannot_be_scored_are_refused(scorer):
    with pytest.raises(ConfigError, match="scoring: got 'guess'"):
        scorer.score_variants(WILD, [], "guess")
    with pytest.raises(DataError, match="31 residues, expected 1 to 30"):
        scorer.pseudo_log_likelihood("M" * 31)
    with pytest.raises(DataError, match="'J'"):
        scorer.score_variants(WILD, [[Mutation("K", 1, "J")]], MASKED)


def test_results_that_are_not_finite_are_an_error(scorer):
    weight = scorer.network.embedding.word_embeddings.weight
    row = int(scorer.tokenizer.encode("A")[0])
    before = weight[row].detach().clone()
    try:
        with torch.no_grad():
            weight[row] = torch.nan
        with pytest.raises(NonFiniteError, match=r"scoring: log-probabilities are NaN or infinite.*restore_from_path"):
            scorer.score_variants(WILD, [read_variant("K2R", WILD)], MASKED)
        with pytest.raises(NonFiniteError, match="embedding: embeddings are NaN or infinite"):
            Embedder(scorer.module, scorer.tokenizer).run([WILD])
    finally:
        with torch.no_grad():
            weight[row] = before
