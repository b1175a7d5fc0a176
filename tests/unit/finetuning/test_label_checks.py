"""Labels that cannot be used are all listed before anything is computed, and a missing value is no class unasked."""

import numpy as np
import pytest

from bionemo_core.data.labelled_records import LabelledRecords, LabelledSplits
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.finetuning.label_checks import LabelCheck, labels_text, warn_of_like_classes
from bionemo_core.finetuning.label_spec import LabelSpec
from bionemo_core.finetuning.objective import classes_of
from bionemo_core.tasks.score import compare_measured

presets = pytest.importorskip("bionemo_esm.presets")


@pytest.fixture(scope="module")
def tokenizer():
    return presets.esm1nv_alphabet()


def records(*labels: str, sequence: bytes = b"MKV", masks: tuple[str, ...] = ()) -> LabelledRecords:
    ids = tuple(f"p{number}" for number in range(len(labels)))
    return LabelledRecords(ids, (sequence,) * len(labels), labels, masks, np.arange(len(labels)))


def check(tokenizer, kind: str, train: LabelledRecords, how: str = "error", classes: tuple[str, ...] = ()):
    return LabelCheck(tokenizer, LabelSpec(kind, classes), how).parts({"train": train})["train"]


@pytest.mark.parametrize("word", ["NaN", "nan", "NA", "", "-", "n/a", "None", "null", "<NA>", "?", "."])
@pytest.mark.parametrize("kind", ["sequence_classification", "sequence_regression"])
def test_a_word_for_a_missing_value_is_refused_or_left_out(tokenizer, word, kind):
    given = records("1", "2", word, "1")
    with pytest.raises(DataError, match=r"1 of 4 records .*missing value 1 \(train 'p2': .*task.on_bad_label=skip"):
        check(tokenizer, kind, given)
    assert check(tokenizer, kind, given, "skip").ids == ("p0", "p1", "p3")


def test_it_is_a_class_if_the_user_says_so(tokenizer):
    given = records("active", "NA", "active")
    with pytest.raises(DataError, match=r"is a class, set task.on_bad_label=class"):
        check(tokenizer, "sequence_classification", given)
    kept = check(tokenizer, "sequence_classification", given, "class")
    assert classes_of(kept, False) == ["NA", "active"]
    assert len(check(tokenizer, "sequence_classification", given, classes=("NA", "active"))) == 3  # as in evaluation
    with pytest.raises(ConfigError, match="a regression has no classes"):
        check(tokenizer, "sequence_regression", records("1"), "class")


@pytest.mark.parametrize("letter", "-.?~_ ")
def test_a_residue_without_a_label_is_refused_or_ignored(tokenizer, letter):
    given = records("CEH", f"C{letter}H", f"{letter}CC", letter * 3, masks=("", "", "011", "110"))
    with pytest.raises(DataError, match=r"missing value 2 \(train 'p1': .* at residue 2; train 'p3'.* in DSSP"):
        check(tokenizer, "token_classification", given)
    kept = check(tokenizer, "token_classification", given, "skip")
    assert kept.ids == ("p0", "p1", "p2"), "no label of p3 counts"
    assert kept.masks == ("", "101", "011")
    assert classes_of(kept, True) == ["C", "E", "H"]
    assert letter in classes_of(check(tokenizer, "token_classification", given, "class"), True)


def test_numbers_for_residues_may_be_missing(tokenizer):
    given = records("1 2 3", "1 nan 3", "NaN")
    with pytest.raises(DataError, match=r"missing value 2 \(train 'p1': 'nan' at residue 2; train 'p2': 'NaN'\)"):
        check(tokenizer, "token_regression", given)
    kept = check(tokenizer, "token_regression", given, "skip")
    assert (kept.ids, kept.masks) == (("p0", "p1"), ("", "101"))


def test_every_bad_label_is_listed_by_its_reason(tokenizer):
    splits = LabelledSplits.from_parts(records("1", ">10", "2", "high"), records("inf", "3"), None)
    with pytest.raises(DataError) as caught:
        LabelCheck(tokenizer, LabelSpec("sequence_regression")).splits(splits)
    text = str(caught.value)
    assert "3 of 6 records" in text
    assert "not a finite number 3 (train 'p1': '>10'; train 'p3': 'high'; val 'p0': 'inf')" in text
    many = records(*["x"] * 15)
    with pytest.raises(DataError, match=r"train 'p9': 'x'; and 5 more\)"):
        check(tokenizer, "sequence_regression", many)
    with pytest.raises(DataError, match="no record of the split train can be used"):
        check(tokenizer, "sequence_regression", many, "skip")


def test_lengths_and_unknown_classes_are_listed_too(tokenizer):
    given = records("CEH", "CE", "CEX", "CEHH", masks=("11", "", "", ""))
    with pytest.raises(DataError) as caught:
        check(tokenizer, "token_classification", given, classes=("C", "E", "H"))
    text = str(caught.value)
    assert "not one label for each residue 3 (train 'p0': 3 residues, 3 labels, 2 mask letters;" in text
    assert "unknown class 1 (train 'p2': 'X' is not among those trained on: C, E, H)" in text


def test_what_is_left_out_is_said(tokenizer, caplog):
    with caplog.at_level("WARNING", logger="bionemo"):
        check(tokenizer, "token_classification", records("CEH", "C-H", "C"), "skip")
    assert "left out 1 of 3 records. not one label for each residue 1 (train 'p2'" in caplog.text
    assert "ignored 1 residue whose label is a missing value" in caplog.text


def test_a_mask_of_residues_is_refused_for_whole_sequences(tokenizer):
    with pytest.raises(ConfigError, match=r"each sequence has one label\. Leave out .*data\.mask_column"):
        check(tokenizer, "sequence_regression", records("1", "2", masks=("", "011")))
    assert len(check(tokenizer, "sequence_regression", records("1", "2", masks=("", "")))) == 2


def test_classes_that_differ_in_case_alone_are_named(caplog):
    for kind, classes in (("sequence_classification", ("No", "yes")), ("token_classification", ("C", "c"))):
        warn_of_like_classes(LabelSpec(kind, classes))
    assert not caplog.records
    warn_of_like_classes(LabelSpec("sequence_classification", ("Yes", "no", "yes")))
    assert "the classes 'Yes' and 'yes' differ in case alone" in caplog.text


def test_classes_are_printed_with_their_counts_in_each_split():
    splits = LabelledSplits.from_parts(records("neg", "neg", "pos"), None, records("pos"))
    text = labels_text(splits, LabelSpec("sequence_classification", ("neg", "pos")))
    assert text == "neg 2 + 0, pos 1 + 1 (sequences in train + test)"
    letters = LabelledSplits.from_parts(records("CCE", masks=("101",)), None, None)
    assert labels_text(letters, LabelSpec("token_classification", ("C", "E"))) == "C 1, E 1 (residues in train)"
    assert labels_text(LabelledSplits.from_parts(records("1", "3"), None, None), LabelSpec("sequence_regression")) == (
        "values of the training split: mean 2, standard deviation 1"
    )


@pytest.mark.parametrize(("word", "hinted"), [("1,5", True), ("-1,5e-3", True), ("1,234.5", True), (">1,5", False)])
def test_a_number_with_a_comma_gets_a_hint(tokenizer, word, hinted):
    with pytest.raises(DataError, match="not a finite number 1") as caught:
        check(tokenizer, "sequence_regression", records("1.5", word))
    assert ("write numbers with a decimal point" in str(caught.value)) is hinted


def test_measured_values_that_cannot_be_read_are_named(caplog, capsys):
    columns = {"value": ["1,5", "2", "", "nan", "3"]}
    assert compare_measured([1.0, 2.0, 3.0, 4.0, 5.0], columns, "value")["compared"] == 2
    assert "1 cell is no finite number, such as '1,5' (write numbers with a decimal point" in caplog.text
    with pytest.raises(DataError, match=r"1 row has a score and a number.* such as '1,5'"):
        compare_measured([1.0, 2.0], {"value": ["1,5", "2"]}, "value")
