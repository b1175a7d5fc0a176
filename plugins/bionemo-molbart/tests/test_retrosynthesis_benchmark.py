"""The reactions that `benchmarks/retrosynthesis.py` makes, what it counts, and its commands with a tiny model."""

import importlib.util
import json
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rdkit import Chem, RDConfig

from bionemo_core import cli

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


load("commands")
templates: Any = load("reaction_templates")
benchmark: Any = load("retrosynthesis")

TEXTBOOK = {
    "thioether formation": ("CCSc1ccccn1", "CCBr.Sc1ccccn1"),
    "reductive amination": ("CN(C)Cc1ccccc1", "CNC.O=Cc1ccccc1"),
    "azole N-alkylation": ("c1ccc(Cn2ccnc2)cc1", "BrCc1ccccc1.c1c[nH]cn1"),
    "sulfonamide formation": ("CNS(=O)(=O)c1ccccc1", "CN.O=S(=O)(Cl)c1ccccc1"),
    "Suzuki coupling": ("c1ccc(-c2cccnc2)cc1", "Brc1cccnc1.OB(O)c1ccccc1"),
    "urea formation": ("CN(C)C(=O)Nc1ccccc1", "CNC.O=C=Nc1ccccc1"),
    "Williamson ether synthesis": ("CCOc1ccccc1", "CCBr.Oc1ccccc1"),
    "esterification": ("CCOC(=O)c1ccccc1", "CCO.O=C(O)c1ccccc1"),
    "Buchwald-Hartwig amination": ("CN(C)c1ccccc1", "Brc1ccccc1.CNC"),
    "amide coupling": ("CNC(=O)c1ccccc1", "CN.O=C(O)c1ccccc1"),
}


@lru_cache(maxsize=1)
def molecules() -> tuple[str, ...]:
    lines = (Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi").read_text().split("\n")[:1200]
    return tuple(line.split()[0] for line in lines if line and "." not in line)


@lru_cache(maxsize=1)
def reactions() -> tuple[Any, ...]:
    forms = dict.fromkeys(Chem.CanonSmiles(text) for text in molecules() if Chem.MolFromSmiles(text))
    return tuple(templates.reactions_of(list(forms)))


def test_textbook_reactions() -> None:
    assert {template.name for template in templates.TEMPLATES} == set(TEXTBOOK)
    for name, (product, reactants) in TEXTBOOK.items():
        product = Chem.CanonSmiles(product)
        found = templates.reaction_of(product)
        assert (found.template, found.text) == (name, f"{reactants}>>{product}")
        assert ".".join(sorted(map(Chem.CanonSmiles, reactants.split(".")))) == reactants


@pytest.mark.parametrize(
    "product",
    [
        "CCNC(=O)CCC(=O)NC",  # two amides: two ways
        "CC(=O)NCC1CCNCC1",  # the free amine would react too
        "CC(N)=O",  # ammonia
        "O=C1CCCN1",  # a ring would open
        "CCCC",
        "no molecule",
    ],
)
def test_what_has_no_single_answer_is_left_out(product: str) -> None:
    assert templates.reaction_of(product) is None


def test_reactions_of_real_molecules_obey_the_rules() -> None:
    by_name = {template.name: template for template in templates.TEMPLATES}
    assert len(reactions()) > 60 and len({one.template for one in reactions()}) == len(by_name)
    more = templates.recombined(templates.reactants_of(reactions()), 30, seed=1)
    assert more == templates.recombined(templates.reactants_of(reactions()), 30, seed=1)
    assert len(more) > 10 and not {one.product for one in more} <= {one.product for one in reactions()}
    for one in (*reactions(), *more):
        assert by_name[one.template].products(one.reactants) == {one.product}
        assert by_name[one.template].cuts(Chem.MolFromSmiles(one.product)) == {one.reactants}
        assert ":" not in one.text and all(Chem.CanonSmiles(side) == side for side in (*one.reactants, one.product))


def test_no_held_out_product_is_shown_in_training() -> None:
    # The product of the first is a reactant of the second.
    inner = templates.Reaction("a", ("CO", "CC(=O)O"), "COC(C)=O")
    outer = templates.Reaction("b", ("COC(C)=O", "CN"), "CNC(C)=O")
    others = [templates.Reaction("c", ("F" * size, "N"), "F" * size + "N") for size in range(1, 30)]
    for seed in range(20):
        splits = templates.split_by_product([inner, outer, *others, inner], val=4, test=10, seed=seed)
        held_out = {one.product for one in (*splits.val, *splits.test)}
        assert (len(held_out), len(splits.test)) == (14, 10)
        assert held_out.isdisjoint(templates.sides(splits.train))
        assert len(splits.train) == 17 - (inner.product in held_out and outer.product not in held_out)
    splits = templates.split_by_product(reactions(), val=10, test=40, seed=1)
    larger = templates.add_recombined(splits, 100, seed=3)
    assert larger.val == splits.val and larger.test == splits.test and set(larger.train) > set(splits.train)
    assert {one.product for one in (*splits.val, *splits.test)}.isdisjoint(templates.sides(larger.train))


def test_what_is_counted() -> None:
    Row = benchmark.Row
    rows = [
        Row("amide coupling", "CNC(C)=O", "CN.CC(=O)O", ("OC(C)=O.NC", "CC")),  # first, spelt otherwise
        Row("amide coupling", "CNC(C)=O", "CN.CC(=O)O", ("C1C", "", "CC", "CN.CC(=O)O")),  # fourth
        Row("esterification", "COC(=O)c1ccccc1", "CO.O=C(O)c1ccccc1", ("CC",)),
        # Another way to make the product.
        Row("amide coupling", "CNC(=O)Cc1ccc(Oc2ccccc2)cc1", "CC", ("CN.O=C(O)Cc1ccc(Oc2ccccc2)cc1",)),
        Row("amide coupling", "CC", "CC.C", ()),
    ]
    counts = benchmark.count(rows, "backward")
    assert counts == benchmark.Counts(5, (1, 1, 2, 2), 3, 6, 8, 2)
    assert benchmark.count(rows, "forward")[:-1] == counts[:-1]
    lines = benchmark.table_of("backward", rows).splitlines()
    error = f"{100 * (0.2 * 0.8 / 5) ** 0.5:.1f}"
    assert lines[2].startswith(f"| all | 5 | 20.0 +- {error} | 20.0 +- {error} | 40.0 +-")
    assert lines[2].endswith("| 60.0 | 75.0 | 40.0 |")
    assert next(one for one in lines if one.startswith("| amide")) == (
        "| amide coupling | 4 | 25.0 | 25.0 | 50.0 | 50.0 | 50.0 | 71.4 | 50.0 |"
    )
    assert next(one for one in lines if one.startswith("| thioether")).split("|")[2].strip() == "0"


def test_the_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def in_this_process(arguments: list[str], environment: dict[str, str]) -> None:
        monkeypatch.delenv("BIONEMO_RUN_FOLDER", raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        small = ["trainer.accelerator=cpu", *(["trainer.num_threads=1"] if "task=evaluate" not in arguments else [])]
        assert cli.main([*arguments, *small]) == 0

    path = tmp_path / "some.smi"
    path.write_text("\n".join(molecules()[:900]) + "\n")
    options = benchmark.options_of([str(path), str(tmp_path / "out"), "--tiny", "--seq-length", "48"])
    options.directions = 1
    found = benchmark.run_benchmark(options, in_this_process)
    rows = found["backward"]
    metrics = json.loads((tmp_path / "out" / "backward_report" / "metrics.json").read_text())["metrics"]
    counts = benchmark.count(rows, "backward")
    assert [metrics[f"top_{k}_accuracy"] for k in benchmark.TOP] == [one / len(rows) for one in counts.top]
    assert len(rows) == 6 and all(row.template in TEXTBOOK and len(row.answers) == 10 for row in rows)
    said = capsys.readouterr().out
    assert (tmp_path / "out" / "table.md").read_text().strip() in said
    assert "pretrain: 3 steps, val_loss" in said and "backward: 3 steps, val_loss" in said
    with pytest.raises(SystemExit, match="Name another folder"):
        benchmark.run_benchmark(options, in_this_process)
