"""Reactions: how their SMILES become pairs, and a tiny model that learns some by heart."""

import csv
from collections import Counter
from functools import lru_cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from rdkit import Chem, RDConfig
from rdkit.Chem import AllChem

from bionemo_core import cli
from bionemo_core.builtin import load_registry
from bionemo_core.config.schema import Choice
from bionemo_core.data.batches.loader import LoaderSettings, eval_loader, train_loader
from bionemo_core.data.batches.pair_objective import learn_pairs
from bionemo_core.data.batches.rng import RecordRng
from bionemo_core.data.pair_records import split_pair
from bionemo_core.errors import DataError
from bionemo_core.inference.beam_writer import BeamWriter, ExactMatch, Written
from bionemo_core.inference.sampling import Seq2SeqInference, source_batch
from bionemo_core.protocols import BuildContext, DataSplits
from bionemo_core.tasks.pair_answers import AnswerColumns, write_pair_answers
from bionemo_molbart import presets
from bionemo_molbart.augment import RandomSpelling
from bionemo_molbart.molecules import canonical_smiles
from bionemo_molbart.sizes import OF_OBJECTIVE
from bionemo_molbart.tokenizer import molbart_tokenizer

TOKENIZER = molbart_tokenizer()
AMIDE = AllChem.ReactionFromSmarts("[C:1](=[O:2])[OX2H1].[NX3;H2;!$(NC=O);!$(N[#7,#8,#16]):3]>>[C:1](=[O:2])[N:3]")
ESTER = AllChem.ReactionFromSmarts("[C:1](=[O:2])[O;X2;H0;!R][C;X4:3].[OH2:4]>>[C:1](=[O:2])[OH1:4]")
WHOLE = {"val_fraction": 0.0, "test_fraction": 0.0}


@lru_cache(maxsize=1)
def reactions() -> list[str]:
    """Reaction SMILES with atom maps: amide couplings and ester hydrolyses of small molecules that RDKit ships."""
    lines = (Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi").read_text().split("\n")[:1500]
    found = [Chem.MolFromSmiles(line.split()[0]) for line in lines if line]
    small = [molecule for molecule in found if molecule is not None and 3 < molecule.GetNumHeavyAtoms() < 14]
    small = [one for one in small if all(atom.GetSymbol() in ("C", "N", "O", "S", "Cl") for atom in one.GetAtoms())]
    acids, amines, esters = (
        [one for one in small if len(one.GetSubstructMatches(Chem.MolFromSmarts(pattern))) == 1]
        for pattern in ("C(=O)[OX2H1]", "[NX3;H2;!$(NC=O);!$(N[#7,#8,#16])]", "C(=O)[O;X2;H0;!R][C;X4]")
    )
    water = Chem.MolFromSmiles("O")
    runs = [(AMIDE, pair) for pair in zip(acids, amines, strict=False)] + [(ESTER, (ester, water)) for ester in esters]
    made = [_run(template, reactants) for template, reactants in runs]
    return list(dict.fromkeys(text for text in made if text))


def _run(template: Any, reactants: tuple[Any, ...]) -> str:
    """Run a reaction: `reactants>>product`, where the product has the maps of the atoms that the template names."""
    numbered, atom_map = [], 0
    for molecule in reactants:
        copy = Chem.Mol(molecule)
        for atom in copy.GetAtoms():
            atom_map += 1
            atom.SetAtomMapNum(atom_map)
        numbered.append(copy)
    products = template.RunReactants(tuple(numbered))
    if not products:
        return ""
    product = products[0][0]
    Chem.SanitizeMol(product)
    return f"{'.'.join(Chem.MolToSmiles(one) for one in numbered)}>>{Chem.MolToSmiles(product)}"


def without_maps(smiles: str) -> str:
    """RDKit's own way to leave the maps out, to compare with."""
    molecule = Chem.MolFromSmiles(smiles)
    for atom in molecule.GetAtoms():
        atom.SetAtomMapNum(0)
    return str(canonical_smiles(Chem.MolToSmiles(molecule)))


def read(path: Path, **params: Any) -> DataSplits:
    choice = Choice("data", "pairs", {"path": str(path), **params})
    context = BuildContext(home=str(path.parent / "home"))
    splits: DataSplits = load_registry().build(choice, tokenizer=TOKENIZER, context=context)
    return splits


def texts(records: Any) -> list[tuple[str, ...]]:
    return [tuple(side.decode() for side in split_pair(records[row])) for row in range(len(records))]


def write(path: Path, lines: list[str], column: str = "reactants>reagents>production") -> Path:
    path.write_text("".join(f"{number},{line}\n" for number, line in enumerate([column, *lines])))
    return path


def test_maps_are_stripped_and_directions_are_opposite(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", reactions())
    assert len(reactions()) > 60 and all(":1]" in line for line in reactions())
    column = {"reaction_column": "reactants>reagents>production", **WHOLE}
    backward = texts(read(path, **column).train)
    sides = [line.split(">") for line in reactions()]
    assert backward == [(without_maps(product), without_maps(reactants)) for reactants, _, product in sides]
    forward = texts(read(path, **column, direction="forward").train)
    assert forward == [(source, target) for target, source in backward]


def test_what_reactions_become_and_what_is_counted(tmp_path: Path) -> None:
    lines = [
        "[CH3:1][OH:2].[Na+:3].[Cl-]>O>[CH3:1][O-:2]",
        "CC>>C |f:0.1|",
        "CC>C",
        "CC>>",
        "CC>>c1ccc",
        ">>CC",
        "CC>>C and more",
        "C[C@H:5](N)O>Cl>C[C@@H:5](O)N",
        "CC",
    ]
    path = write(tmp_path / "r.csv", lines, "rxn")
    records: Any = read(path, reaction_column="rxn", direction="forward", reagents=True, **WHOLE).train
    assert texts(records) == [
        ("CO.O.[Cl-].[Na+]", "C[O-]"),
        ("CC", "C"),
        (canonical_smiles("C[C@H](N)O.Cl"), canonical_smiles("C[C@@H](O)N")),
    ]
    counts = records.records.manifest["records"]
    assert counts["rejected"] == Counter(
        {
            "no reaction, expected reactants>reagents>product": 2,
            "empty target": 1,
            "target: no molecule": 1,
            "empty source": 1,
            "white space within the reaction": 1,
        }
    )
    assert counts["notes"] == {"CXSMILES extension left out": 1}
    assert counts["read"] == len(lines) == counts["used"] + sum(counts["rejected"].values())


def module_for(splits: DataSplits, **options: Any) -> Any:
    still = {"hidden_dropout": 0.0, "attention_dropout": 0.0}
    sizes = {"num_layers": 1, "hidden_size": 64, "num_attention_heads": 4, "seq_length": 96, **still, **options}
    module = presets.megamolbart(**sizes, tokenizer=TOKENIZER, context=BuildContext(seed=2))
    learn_pairs(module, splits, TOKENIZER, "megamolbart")
    return module


@pytest.mark.parametrize("model", ["megamolbart_xsmall", "molmim_xsmall"])
def test_keys_that_pairs_do_not_read_are_refused(tmp_path: Path, capsys: Any, monkeypatch: Any, model: str) -> None:
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path / "home"))
    path = write(tmp_path / "r.csv", [f"{'C' * number}O>>{'C' * number}N" for number in range(1, 9)], "rxn")
    size = ["model.num_layers=1", "model.hidden_size=32", "model.num_attention_heads=2", "trainer.accelerator=cpu"]
    pairs = ["data=pairs", f"data.path={path}", "data.reaction_column=rxn"]
    assert set(OF_OBJECTIVE) <= {key.name for key in load_registry().get("model", "megamolbart").keys}
    assert cli.main([f"model={model}", *size, *pairs, "model.augmentation_prob=0.3", "model.mode=independent"]) == 2
    said = capsys.readouterr().err
    assert "model.augmentation_prob" in said and "model.mode" in said
    assert "not used with data of pairs, whose sources and targets are learnt as they stand. Leave them out." in said
    assert not list((tmp_path / "home" / "runs").glob("*/*")), "no folder is left"


@torch.no_grad()
def test_the_loss_of_pairs_is_torchs(tmp_path: Path) -> None:
    splits = read(write(tmp_path / "r.csv", reactions()[:4], "rxn"), reaction_column="rxn", **WHOLE)
    module = module_for(splits)
    network = module.network.eval()
    size: dict[str, Any] = {"seq_length": 96, "micro_batch_size": 2, "global_batch_size": 2}
    total, expected, seen = 0.0, 0.0, 0
    for step in eval_loader(splits.train, TOKENIZER, module.objective, LoaderSettings(**size)):
        for batch in step.micro_batches:
            total += float(network(batch))
            seen += batch.num_sequences
    for source, target in texts(splits.train):
        expected -= log_prob(network, source, target)
    assert seen == 4
    assert total == pytest.approx(expected, rel=1e-5)


def test_sources_are_spelt_at_random_and_are_still_the_same_molecules(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", reactions()[:12], "rxn")
    source = {"data": "pairs", "path": str(path), "reaction_column": "rxn", **WHOLE}
    choice = Choice("data", "augmented", {"source": source, "augmentations": ["random_smiles"]})
    context = BuildContext(home=str(tmp_path / "home"))
    records: Any = load_registry().build(choice, tokenizer=TOKENIZER, context=context).train
    own = texts(records)
    changed = 0
    for data_pass in range(3):
        drawn = [records.draw_record(row, RecordRng(5, data_pass, row, "record")) for row in range(len(own))]
        for row, (record, (product, reactants)) in enumerate(zip(drawn, own, strict=True)):
            spelt, target = (side.decode() for side in split_pair(record))
            assert (canonical_smiles(spelt), target) == (product, reactants)
            assert len(TOKENIZER.encode(spelt)) <= records.lengths[row][0]
            changed += spelt != product
    assert changed > 24
    half = RandomSpelling(TOKENIZER, 0.5)
    kept = [half(b"CCOC(=O)c1ccccc1", RecordRng(1, 0, row, "record")) == b"CCOC(=O)c1ccccc1" for row in range(200)]
    assert 70 < sum(kept) < 130
    assert RandomSpelling(TOKENIZER, 1.0)(b"no molecule", RecordRng(1, 0, 0, "record")) == b"no molecule"


class Opened:
    def __init__(self, module: Any) -> None:
        self.module, self.tokenizer = module, TOKENIZER


def top_k(rows: list[dict[str, str]], k: int) -> float:
    """The accuracy from the table of predictions, without the code under test."""
    hits = 0
    for row in rows:
        answers = [row[f"answer_{number}"] for number in range(1, k + 1)]
        molecules = [Chem.MolFromSmiles(answer) if answer else None for answer in answers]
        hits += Chem.CanonSmiles(row["target"]) in [Chem.MolToSmiles(one) for one in molecules if one is not None]
    return hits / len(rows)


def test_reactions_are_learnt_by_heart(tmp_path: Path) -> None:
    short = [line for line in reactions() if len(without_maps(line.split(">")[0])) < 22][:6]
    splits = read(write(tmp_path / "r.csv", short, "rxn"), reaction_column="rxn", **WHOLE)
    module = module_for(splits)
    network, size = module.network, {"seq_length": 96, "micro_batch_size": 1, "global_batch_size": 1}
    columns = AnswerColumns(BeamWriter(Seq2SeqInference.of(Opened(module)), beam_size=3))
    before = write_pair_answers(splits.train, columns, tmp_path / "before.csv")
    optimizer = torch.optim.AdamW(network.train().parameters(), lr=3e-3, weight_decay=0.0)
    losses = []
    for step in train_loader(
        splits.train, TOKENIZER, module.objective, LoaderSettings(pack_window=6, **size), last_step=300
    ):
        (batch,) = step.micro_batches
        loss = network(batch) / batch.num_loss_tokens
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    network.eval()
    after = write_pair_answers(splits.train, columns, tmp_path / "after.csv")
    assert losses[0] > 4 and losses[-1] < 0.1
    assert (before["top_1_accuracy"], after["top_1_accuracy"]) == (0.0, 1.0)
    assert list(after) == ["top_1_accuracy", "top_2_accuracy", "top_3_accuracy"]
    for name, accuracies in (("before", before), ("after", after)):
        with (tmp_path / f"{name}.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert [accuracies[f"top_{k}_accuracy"] for k in (1, 2, 3)] == [top_k(rows, k) for k in (1, 2, 3)]
        assert [(row["source"], row["target"]) for row in rows] == texts(splits.train)
    assert [row["rank"] for row in rows] == ["1"] * len(short)
    scores = [[float(row[f"score_{k}"]) for k in (1, 2, 3)] for row in rows]
    assert all(own == sorted(own, reverse=True) and own[0] <= 0 for own in scores)
    written = columns.predict([rows[0]["source"]])[0][0]
    assert written.score == pytest.approx(log_prob(network, rows[0]["source"], written.text), abs=1e-4)


@torch.no_grad()
def log_prob(network: Any, source: str, target: str) -> float:
    """The log-probability of a target, step by step."""
    wanted = [*TOKENIZER.encode(target).tolist(), TOKENIZER.eos_id]
    memory = network.encode(source_batch([TOKENIZER.encode(source)], TOKENIZER.pad_id, 96))
    state = network.start(memory, len(wanted))
    logits = [network.step(torch.tensor([token]), state)[0] for token in [TOKENIZER.bos_id, *wanted[:-1]]]
    return -float(F.cross_entropy(torch.stack(logits), torch.tensor(wanted), reduction="sum"))


def test_ranks_are_of_molecules_not_of_spellings() -> None:
    matches = ExactMatch(TOKENIZER)
    answers = [Written(text, 0.0) for text in ("C1CC", "OCC", "CN.CO", "CCO")]
    assert [matches.rank(target, answers) for target in ("CCO", "CO.CN", "CCC", "CN")] == [2, 3, 0, 0]
    assert matches.accuracies(4) == {
        "top_1_accuracy": 0.0,
        "top_2_accuracy": 0.25,
        "top_3_accuracy": 0.5,
        "top_4_accuracy": 0.5,
    }
    assert matches.accuracies(10)["top_10_accuracy"] == 0.5 and ExactMatch(TOKENIZER).accuracies(5) == {}


def test_uspto_50k_by_its_public_layout(tmp_path: Path) -> None:
    header, folder = "class,id,reactants>reagents>production", tmp_path / "uspto"
    folder.mkdir()
    for name, chosen in (("train", slice(0, 6)), ("val", slice(6, 8)), ("test", slice(8, 11))):
        rows = [f"2,US0{number // 2},{line}" for number, line in enumerate(reactions()[chosen])]
        (folder / f"raw_{name}.csv").write_text("\n".join([header, *rows]) + "\n")
    context = BuildContext(home=str(tmp_path / "home"))

    def build(**params: Any) -> DataSplits:
        choice = Choice("data", "uspto50k", params)
        splits: DataSplits = load_registry().build(choice, tokenizer=TOKENIZER, context=context)
        return splits

    splits = build(path=str(folder))
    assert [len(part or []) for part in (splits.train, splits.val, splits.test)] == [6, 2, 3]  # patents repeat
    reactants, _, product = reactions()[8].split(">")
    assert texts(splits.test)[0] == (without_maps(product), without_maps(reactants))
    assert texts(build(path=f"{folder}/", direction="forward").test)[0] == texts(splits.test)[0][::-1]
    (folder / "raw_val.csv").unlink()
    with pytest.raises(DataError, match=r"data\.val_path: .*raw_val\.csv: cannot be read.*Check the path"):
        build(path=str(folder))

    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        (folder / "raw_val.csv").write_text(f"{header}\n1,US01,{reactions()[0]}\n")
        fetched = build(path=f"http://127.0.0.1:{server.server_port}/uspto")
        server.shutdown()
    assert texts(fetched.train) == texts(splits.train) and texts(fetched.test) == texts(splits.test)
    assert len(fetched.val or []) == 1
