"""Pairs of a source and a target: what is read, what is rejected and counted, and what the model gets of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bionemo_core.builtin import load_registry
from bionemo_core.config.schema import Choice
from bionemo_core.data.batches.cuts import count_cuts
from bionemo_core.data.batches.loader import LoaderSettings, train_loader
from bionemo_core.data.batches.masking import MaskedLanguageObjective
from bionemo_core.data.batches.pair_objective import PairObjective, learn_pairs
from bionemo_core.data.batches.rng import RecordRng
from bionemo_core.data.tokenizer import CharacterTokenizer
from bionemo_core.errors import BioNeMoError, ConfigError, DataError
from bionemo_core.protocols import BuildContext, DataSplits

ROWS = [("AAA", "LLLL"), ("AG", "GA"), ("", "AA"), ("AA", ""), ("A1A", "AA"), ("VVVV", "V"), ("KR", "RKRKRK")]
WHOLE = {"val_fraction": 0.0, "test_fraction": 0.0}


def table(path: Path, header: tuple[str, ...], rows: Any, separator: str = ",") -> str:
    path.write_text("".join(separator.join(row) + "\n" for row in [header, *rows]))
    return str(path)


def read(tokenizer: CharacterTokenizer, context: BuildContext, **params: Any) -> DataSplits:
    choice = Choice("data", "pairs", params)
    splits: DataSplits = load_registry().build(choice, tokenizer=tokenizer, context=context)
    return splits


def texts(records: Any) -> list[str]:
    return [] if records is None else [records[row].decode() for row in range(len(records))]


@pytest.mark.parametrize(("name", "separator"), [("a.csv", ","), ("a.tsv", "\t")])
def test_columns_of_the_users_choice(
    name: str, separator: str, tmp_path: Path, tokenizer: CharacterTokenizer, context: BuildContext
) -> None:
    rows = [(target, "note", source) for source, target in ROWS]
    path = table(tmp_path / name, ("written", "other", "read"), rows, separator)
    columns = {"source_column": "read", "target_column": "written"}
    splits = read(tokenizer, context, path=path, **columns, **WHOLE)
    assert texts(splits.train) == ["AAA\tLLLL", "AG\tGA", "VVVV\tV", "KR\tRKRKRK"]
    assert splits.train.lengths.tolist() == [[3, 4], [2, 2], [4, 1], [2, 6]]  # type: ignore[attr-defined]
    assert splits.train.records.manifest["records"] == {  # type: ignore[attr-defined]
        "read": 7,
        "used": 4,
        "rows": 4,
        "rejected": {"empty source": 1, "empty target": 1, "source: residue outside the alphabet": 1},
        "notes": {},
    }
    short = read(tokenizer, context, path=path, **columns, max_length=4, **WHOLE).train
    assert texts(short) == ["AAA\tLLLL", "AG\tGA", "VVVV\tV"]
    assert short.records.manifest["records"]["rejected"]["target longer than 4 tokens"] == 1  # type: ignore[attr-defined]


def test_splits_as_elsewhere(tmp_path: Path, tokenizer: CharacterTokenizer, context: BuildContext) -> None:
    good = [("A" * number, "L" * number, "test" if number % 3 else "train") for number in range(1, 10)]
    path = table(tmp_path / "a.csv", ("source", "target", "part"), good)
    by_size = read(tokenizer, context, path=path, val_size=2, test_size=3)
    assert [len(part or []) for part in (by_size.train, by_size.val, by_size.test)] == [4, 2, 3]
    by_column = read(tokenizer, context, path=path, split_column="part")
    assert texts(by_column.train) == ["AAA\tLLL", "AAAAAA\tLLLLLL", "A" * 9 + "\t" + "L" * 9]
    assert by_column.val is None and len(by_column.test or []) == 6
    own = read(tokenizer, context, path=path, val_path=path, test_size=3)
    assert (len(own.val or []), len(own.train), len(own.test or [])) == (9, 6, 3)
    assert own.fingerprint != by_column.fingerprint != by_size.fingerprint


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"source_column": "from"}, "column 'from' is not in the header.*Name one of these with data.source_column"),
        ({"target_column": "to"}, "column 'to' is not in the header.*Name one of these with data.target_column"),
        ({"reaction_column": "source", "target_column": "target"}, "data.target_column.*Keep one of the two ways"),
        ({"reaction_column": "rxn"}, "column 'rxn' is not in the header.*with data.reaction_column"),
        ({"direction": "forward"}, "data.direction: applies to reactions.*data.reaction_column"),
        ({"reaction_column": "source", "direction": "up"}, "data.direction: 'up', expected one of backward, forward"),
        ({"reaction_column": "source", "reagents": True}, "data.reagents=true.*data.direction=forward"),
        ({"on_invalid": "drop"}, "data.on_invalid: 'drop', expected one of skip, error, unk"),
        ({"on_invalid": "error"}, r"a.csv:4 record .*empty source.*data.on_invalid=skip"),
        ({"path": "a.fasta"}, "fasta files have no columns for pairs.*data.format"),
    ],
)
def test_what_cannot_be_read_is_said(
    params: dict[str, Any], match: str, tmp_path: Path, tokenizer: CharacterTokenizer, context: BuildContext
) -> None:
    path = table(tmp_path / "a.csv", ("source", "target"), ROWS)
    if "path" in params:
        path = str(tmp_path / params.pop("path"))
        Path(path).write_text(">a\nAAA\n")
    with pytest.raises(BioNeMoError, match=match):
        read(tokenizer, context, path=path, **params, **WHOLE)


def test_the_encoder_reads_the_source_and_the_decoder_writes_the_target(tokenizer: CharacterTokenizer) -> None:
    objective = PairObjective(tokenizer, max_tokens=5, target_length=4)
    source, decoder_input, labels, mask = objective.record_example("ALA\tGV", RecordRng(0, 0, 0, "masking"))
    assert tokenizer.decode(source.tolist()) == "ALA" and len(source) == 3
    assert decoder_input.tolist() == [tokenizer.bos_id, *tokenizer.encode("GV")]
    assert labels.tolist() == [*tokenizer.encode("GV"), tokenizer.eos_id] and mask.all()
    cut = objective.record_example(b"AAAAAAA\tGGGGGG", RecordRng(0, 0, 0, "masking"))
    assert [len(part) for part in cut] == [5, 4, 4, 4]
    assert tokenizer.eos_id not in cut.labels  # what was cut has no end yet
    assert [side.tolist() for side in objective.laid_lengths(np.array([[3, 2], [7, 6]]))] == [[3, 5], [3, 4]]
    with pytest.raises(DataError, match="is not a pair: expected a source, a tab and a target"):
        objective.record_example("AAA", RecordRng(0, 0, 0, "masking"))
    with pytest.raises(DataError, match="has an empty side"):
        objective.record_example("AAA\t", RecordRng(0, 0, 0, "masking"))


def test_every_pair_arrives_once_and_packs_hold_no_air(
    tmp_path: Path, tokenizer: CharacterTokenizer, context: BuildContext
) -> None:
    rows = [("A" * (1 + number % 7), "L" * (1 + number % 4)) for number in range(60)]
    records = read(tokenizer, context, path=table(tmp_path / "a.csv", ("source", "target"), rows), **WHOLE).train
    objective = PairObjective(tokenizer, max_tokens=16, target_length=16)
    shape = {"seq_length": 16, "micro_batch_size": 1, "global_batch_size": 1, "pack_window": 60, "seed": 3}
    sources, seen, packs = 0, 0, 0
    for step in train_loader(records, tokenizer, objective, LoaderSettings(**shape), last_step=1000):
        batch: Any = step.micro_batches[0]
        sources += sum(batch.source.lengths)
        seen, packs = seen + batch.num_sequences, packs + 1
        if seen == len(rows):
            break
    assert sources == sum(len(source) for source, _ in rows)
    assert packs <= 1.2 * max(sources / 16, sum(len(target) + 1 for _, target in rows) / 16) + 1
    cuts = count_cuts(records, PairObjective(tokenizer, max_tokens=6, target_length=4), 16)
    assert cuts is not None and cuts.cut == sum(len(s) > 6 or len(t) > 3 for s, t in rows)
    assert cuts.least_room == 3 and "of 60 pairs are cut to the first 6 tokens of the source and 3" in cuts.text


def test_a_blend_is_of_one_kind(tmp_path: Path, tokenizer: CharacterTokenizer, context: BuildContext) -> None:
    path = table(tmp_path / "a.csv", ("source", "target"), ROWS)
    part = {"data": "pairs", "path": path, **WHOLE}

    def blend(*parts: Any) -> DataSplits:
        choice = Choice("data", "blend", {"parts": list(parts)})
        splits: DataSplits = load_registry().build(choice, tokenizer=tokenizer, context=context)
        return splits

    both = blend(part, {**part, "max_length": 4}).train
    assert both.pairs and both.lengths[np.array([0, 4, 5])].tolist() == [[3, 4], [3, 4], [2, 2]]  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="pairs and single sequences cannot be blended"):
        blend(part, "sample")


def test_a_model_without_a_decoder_is_refused(
    tmp_path: Path, tokenizer: CharacterTokenizer, objective: MaskedLanguageObjective, context: BuildContext
) -> None:
    splits = read(tokenizer, context, path=table(tmp_path / "a.csv", ("source", "target"), ROWS), **WHOLE)

    class Encoder:
        seq_length = 16

    model: Any = Encoder()
    model.objective = objective
    with pytest.raises(ConfigError, match=r"model=esm1nv: the data are pairs.*no decoder.*Choose an encoder-decoder"):
        learn_pairs(model, splits, tokenizer, "esm1nv")
    single = DataSplits(["AAA"])
    learn_pairs(model, single, tokenizer, "esm1nv")
    assert model.objective is objective


def test_columns_by_number(tmp_path: Path, tokenizer: CharacterTokenizer, context: BuildContext) -> None:
    path = table(tmp_path / "a.csv", ("set", "written", "read"), [("train", "LL", "A"), ("test", "VV", "G")])
    splits = read(tokenizer, context, path=path, source_col=2, target_col=1, split_column="set")
    assert (texts(splits.train), texts(splits.test)) == (["A\tLL"], ["G\tVV"])
    mixed = read(tokenizer, context, path=path, source_column="read", target_col=1, **WHOLE)
    assert texts(mixed.train) == ["A\tLL", "G\tVV"]
    for params, message in (
        ({"target_col": 3}, r"data\.target_col: there is no column 3, counted from 0, in .* set, written, read\."),
        ({"source_col": 1, "source_column": "read"}, r"data\.source_column and data\.source_col are both given"),
        ({"source_col": 1, "reaction_column": "read"}, r"data\.source_col: data\.reaction_column has both sides"),
    ):
        with pytest.raises(ConfigError, match=message):
            read(tokenizer, context, path=path, **params)
    with pytest.raises(ConfigError, match=r"data\.path and data\.dataset_path: neither is given"):
        read(tokenizer, context)
