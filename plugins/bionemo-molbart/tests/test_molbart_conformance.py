"""The conformance kit over this plugin, with one model of each kind made tiny."""

import atexit
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from bionemo_core.testing import PluginConformance

MOLECULES = Path(__file__).with_name("molecules.smi")
_FOLDER = TemporaryDirectory(prefix="bionemo-molbart-")
atexit.register(_FOLDER.cleanup)
LINKS = Path(_FOLDER.name) / "links.txt"
LINKS.write_text(f"{MOLECULES.as_uri()}\n")
for _name in ("train", "val", "test"):
    _rows = (f"1,US01,CC(=O)O.N{'C' * number}>>CC(=O)N{'C' * number}\n" for number in range(1, 7))
    _table = Path(_FOLDER.name) / f"raw_{_name}.csv"
    _table.write_text("class,id,reactants>reagents>production\n" + "".join(_rows))


class TestMolbart(PluginConformance):
    plugin = "bionemo-molbart"
    models = ("megamolbart", "molmim")
    small: ClassVar[dict[str, int]] = {
        "num_layers": 2,
        "hidden_size": 64,
        "num_attention_heads": 4,
        "seq_length": 128,
        "val_molecules": 8,
    }
    parameters: ClassVar[dict[str, dict[str, Any]]] = {
        "data/smiles": {"path": str(MOLECULES), "val_size": 2, "test_size": 2},
        "data/uspto50k": {"path": _FOLDER.name},
        "data/zinc15": {"links_file": str(LINKS), "max_weight": None},
    }
