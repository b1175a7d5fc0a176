"""Random spellings, span masks and the four modes, against rules written down a second time."""

import gzip
import math
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem

from bionemo_core.data.batches.cuts import count_cuts
from bionemo_core.data.batches.rng import RecordRng
from bionemo_core.errors import ConfigError, DataError
from bionemo_molbart.augment import MODES, Spelling, find_spelling, slack
from bionemo_molbart.molecules import canonical_smiles, parsed, parsed_before, randomised
from bionemo_molbart.objective import MoleculeObjective
from bionemo_molbart.spans import SpanMasking, poisson_distribution
from bionemo_molbart.tokenizer import molbart_tokenizer

TOKENIZER = molbart_tokenizer()
ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
IDS = TOKENIZER.encode(ASPIRIN)


def objective(mode: str, seq_length: int = 128, masked: bool = False, **flags: bool) -> MoleculeObjective:
    masking = SpanMasking(TOKENIZER.mask_id) if masked else None
    return MoleculeObjective(TOKENIZER, find_spelling(mode, **flags), seq_length=seq_length, masking=masking)


def texts(made: MoleculeObjective, record: str, index: int = 0, data_pass: int = 0) -> tuple[str, str]:
    example = made.record_example(record.encode(), RecordRng(7, data_pass, index, "masking"))
    return TOKENIZER.decode(example.source.tolist()), TOKENIZER.decode(example.labels.tolist())


def test_sides_of_an_example_by_hand() -> None:
    example = objective("canonicalized").record_example(b"CCO", RecordRng(0, 0, 0, "masking"))
    assert example.source.tolist() == [272, 272, 285]
    assert example.decoder_input.tolist() == [2, 272, 272, 285]
    assert example.labels.tolist() == [272, 272, 285, 3]
    assert example.loss_mask.tolist() == [True] * 4
    assert {array.dtype.name for array in example[:3]} == {"int32"}


@pytest.mark.parametrize("mode", list(MODES))
def test_modes(mode: str) -> None:
    made = objective(mode)
    pairs = [texts(made, ASPIRIN, index) for index in range(30)]
    assert {canonical_smiles(one) for pair in pairs for one in pair} == {ASPIRIN}
    sources, targets = ({pair[side] for pair in pairs} for side in (0, 1))
    same = sum(source == target for source, target in pairs)
    if mode == "canonicalized":
        assert sources == targets == {ASPIRIN}
    elif mode == "equivariant":
        assert same == 30
        assert len(sources) > 15
    elif mode == "invariant":
        assert targets == {ASPIRIN}
        assert len(sources) > 15
    else:
        assert same < 10
        assert min(len(sources), len(targets)) > 15


@pytest.mark.parametrize("mode", ["equivariant", "invariant", "independent"])
def test_share_of_molecules_that_are_spelt_at_random(mode: str) -> None:
    made = MoleculeObjective(TOKENIZER, find_spelling(mode, 0.25), seq_length=128)
    pairs = [texts(made, ASPIRIN, index) for index in range(2000)]
    assert {canonical_smiles(one) for pair in pairs for one in pair} == {ASPIRIN}
    # Its own spelling is one of some 60 random ones of aspirin, so a few more than three quarters keep it.
    kept = sum(pair == (ASPIRIN, ASPIRIN) for pair in pairs) / len(pairs)
    assert kept == pytest.approx(0.75, abs=0.04)
    never = MoleculeObjective(TOKENIZER, find_spelling(mode, 0.0), seq_length=128)
    assert {texts(never, ASPIRIN, index) for index in range(50)} == {(ASPIRIN, ASPIRIN)}


def test_canonical_target_of_a_record_in_another_spelling() -> None:
    kekule = "OC(=O)C1=CC=CC=C1OC(C)=O"
    assert texts(objective("canonicalized"), kekule) == (kekule, kekule)
    assert texts(objective("canonicalized", canonicalize_target_smile=True), kekule) == (ASPIRIN, ASPIRIN)
    assert texts(objective("invariant", canonicalize_target_smile=True), kekule)[1] == ASPIRIN


def test_flags_override_a_mode_and_contradictions_are_refused() -> None:
    flags = {"canonicalize_encoder_input": False, "encoder_augment": True}
    assert find_spelling("canonicalized", **flags) == MODES["invariant"]
    with pytest.raises(ConfigError, match=r"canonicalize_decoder_output and model.decoder_independent_augment"):
        find_spelling("invariant", decoder_independent_augment=True)
    with pytest.raises(ConfigError, match=r"canonicalize_encoder_input and model.encoder_augment"):
        Spelling(True, True, True, False)
    with pytest.raises(ConfigError, match="expected one of canonicalized"):
        find_spelling("random")
    with pytest.raises(ConfigError, match=r"model.augmentation_prob: 1.5"):
        find_spelling("equivariant", 1.5)
    with pytest.raises(ConfigError, match=r"model.augmentation_prob=0.5 has no effect"):
        find_spelling("canonicalized", 0.5)


def test_drawn_by_seed_pass_and_record_alone() -> None:
    made, again = objective("independent", masked=True), objective("independent", masked=True)
    first = [texts(made, ASPIRIN, index, data_pass) for data_pass in (0, 1) for index in range(8)]
    for seed in range(5):  # RDKit's own generator is left anywhere
        Chem.MolToRandomSmilesVect(Chem.MolFromSmiles("CCCCCCO"), 3, randomSeed=seed)
        Chem.MolToSmiles(Chem.MolFromSmiles("c1ccccc1CCO"), doRandom=True)
    order = [(data_pass, index) for data_pass in (0, 1) for index in range(8)]
    second = {(p, i): texts(again, ASPIRIN, i, p) for p, i in reversed(order)}
    assert first == [second[place] for place in order]
    assert len(set(first)) > 12


def test_random_spellings_keep_the_molecule(realdata: Path) -> None:
    lines = gzip.decompress((realdata / "zinc_20k.smi.gz").read_bytes()).decode().split()
    for number, smiles in enumerate(lines[:400]):
        molecule = parsed(smiles)
        assert molecule is not None
        assert canonical_smiles(randomised(molecule, number)) == Chem.MolToSmiles(Chem.MolFromSmiles(smiles))


@pytest.mark.parametrize("mode", list(MODES))
@pytest.mark.parametrize("seq_length", [24, 40, 128])
def test_laid_lengths_bound_what_is_drawn(mode: str, seq_length: int, realdata: Path) -> None:
    records = gzip.decompress((realdata / "zinc_20k.smi.gz").read_bytes()).decode().split()[:120]
    made = objective(mode, seq_length, masked=True)
    lengths = np.array([len(TOKENIZER.encode(record)) for record in records], dtype=np.int32)
    source_bounds, target_bounds = made.laid_lengths(lengths)
    assert source_bounds.max() <= seq_length - 2
    assert target_bounds.max() <= seq_length - 1
    for index, record in enumerate(records):
        example = made.record_example(record, RecordRng(1, 0, index, "masking"))
        assert 0 < len(example.source) <= source_bounds[index]
        assert len(example.decoder_input) == len(example.labels) == len(example.loss_mask) <= target_bounds[index]


def test_bounds_are_tight_where_nothing_is_drawn() -> None:
    source, target = objective("canonicalized").laid_lengths(np.array([1, 50, 200]))
    assert source.tolist() == [1, 50, 126]
    assert target.tolist() == [2, 51, 127]


def test_molecules_that_are_cut_are_counted() -> None:
    made = objective("canonicalized", seq_length=32)
    counted = count_cuts(_Lengths(np.array([10, 30, 31, 90])), made, 32)
    assert counted is not None
    assert counted.text.startswith("2 of 4 sequences are cut to their first 30 tokens")
    assert len(made.record_example("C" * 31, RecordRng(1, 0, 0, "masking")).source) == 30


class _Lengths:
    def __init__(self, lengths: np.ndarray) -> None:
        self.lengths = lengths

    def __len__(self) -> int:
        return len(self.lengths)


def test_most_spellings_fit_at_the_first_draw(realdata: Path) -> None:
    records = gzip.decompress((realdata / "zinc_20k.smi.gz").read_bytes()).decode().split()[:1000]
    made = objective("equivariant")
    for index, record in enumerate(records):
        made.record_example(record, RecordRng(3, 0, index, "masking"))
    assert made.redrawn < 0.06 * len(records)
    assert made.kept < 0.005 * len(records)


def test_a_cut_molecule_is_asked_for_no_end() -> None:
    example = objective("canonicalized", seq_length=8).record_example(ASPIRIN, RecordRng(0, 0, 0, "masking"))
    assert example.source.tolist() == IDS[:6].tolist()
    assert example.decoder_input.tolist() == [2, *IDS[:6].tolist()]
    assert example.labels.tolist() == IDS[:7].tolist()


@pytest.mark.parametrize(("record", "message"), [("", "is empty"), ("c1ccc", "not the SMILES of a molecule")])
def test_records_that_are_no_molecules(record: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        objective("equivariant").record_example(record, RecordRng(0, 0, 0, "masking"))


def masked_by_the_book(ids: list[int], draw: RecordRng, mask_prob: float, mean: float) -> list[int]:
    """Token by token: a start, a Poisson length by summing its terms, one mask for the span."""
    starts = [u < mask_prob for u in draw.uniform(len(ids))]
    lengths = iter(draw.uniform(sum(starts)))
    result, place, taken = [], 0, 0
    while place < len(ids):
        if starts[place]:
            u, n, total = next(lengths), 0, math.exp(-mean)
            while u >= total:
                n += 1
                total += math.exp(-mean) * mean**n / math.factorial(n)
            if place >= taken:
                result.append(4)
                taken = place + n
        if place >= taken:
            result.append(ids[place])
        place += 1
    return result


def test_span_masking_against_a_token_by_token_rule() -> None:
    masking = SpanMasking(4, mask_prob=0.1, span_lambda=3.0)
    ids = np.arange(300, 360, dtype=np.int32)
    for index in range(400):
        got = masking(ids, RecordRng(11, 0, index, "masking")).tolist()
        assert got == masked_by_the_book(ids.tolist(), RecordRng(11, 0, index, "masking"), 0.1, 3.0)


def test_share_of_masked_tokens() -> None:
    masking, ids = SpanMasking(4), np.arange(300, 360, dtype=np.int32)
    made = [masking(ids, RecordRng(2, 0, index, "masking")) for index in range(2000)]
    # A free token stays with 0.9 + 0.1 e^-3, and a step takes 0.9 + 0.1 (3 + e^-3) tokens on average.
    survivors = np.mean([np.count_nonzero(one != 4) for one in made]) / 60
    assert survivors == pytest.approx((0.9 + 0.1 * math.exp(-3)) / (0.9 + 0.1 * (3 + math.exp(-3))), abs=0.01)


def test_a_span_of_no_tokens_inserts_a_mask() -> None:
    masking, ids = SpanMasking(4, mask_prob=0.02), np.arange(300, 360, dtype=np.int32)
    made = [masking(ids, RecordRng(2, 0, index, "masking")) for index in range(200)]
    inserted = [one for one in made if len(one) == 61 and np.count_nonzero(one == 4) == 1]
    assert inserted
    assert all(one[one != 4].tolist() == ids.tolist() for one in inserted)


def test_poisson_distribution() -> None:
    table = poisson_distribution(3.0)
    assert table[:3] == pytest.approx([math.exp(-3), 4 * math.exp(-3), 8.5 * math.exp(-3)])
    assert table[-1] == pytest.approx(1.0, abs=1e-15)


def test_settings_out_of_range() -> None:
    with pytest.raises(ConfigError, match=r"model.mask_prob: 1.5"):
        SpanMasking(4, mask_prob=1.5)
    with pytest.raises(ConfigError, match=r"model.span_lambda: 0"):
        SpanMasking(4, span_lambda=0.0)
    with pytest.raises(ConfigError, match=r"model\.seq_length: 2"):
        objective("canonicalized", seq_length=2)
    assert slack(24) == 5


def test_a_molecule_that_was_parsed_before_is_spelt_as_at_the_first_time(realdata: Path) -> None:
    odd = [
        ASPIRIN,
        "C[C@H](N)C(=O)O",
        "F/C=C/F",
        "[NH3+]CC([O-])=O.Cl",
        "c1ccc2[nH]ccc2c1",
        "[2H]C([2H])O",
        "[Fe+2]<-O",
    ]
    zinc = gzip.decompress((realdata / "zinc_20k.smi.gz").read_bytes()).decode().split()[:200]
    for smiles in (*odd, *zinc):
        found = [parsed(smiles), *(parsed_before(smiles) for _ in range(4))]  # parsed twice, then restored
        for seed in range(10):
            assert len({randomised(one, seed) for one in found if one is not None}) == 1
    assert [parsed_before("C1CC") for _ in range(4)] == [None] * 4
