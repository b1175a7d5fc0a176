"""The notebooks of `examples/notebooks`: their cells run in order and show what they say, and no output is stored."""

import json
import re

import pytest
from documents import PROJECT
from runs import Home

NOTEBOOKS = sorted((PROJECT / "examples/notebooks").glob("*.ipynb"))
RUN = """
import json, sys
from pytorch_lightning.trainer.connectors import accelerator_connector
accelerator_connector._IS_INTERACTIVE = True  # as in a notebook's kernel, where Lightning refuses most strategies
names = {"__name__": "__main__"}
with open(sys.argv[1]) as file:
    cells = json.load(file)["cells"]
for cell in cells:
    if cell["cell_type"] == "code":
        exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
print("shown:", eval(sys.argv[2], names))
"""
SHOWN = {
    "embed_family": "embeddings.shape == (60, 192) and separated > 0.9",
    "scan_variants": "scan.shape == (20, 56) and (scan == 0).sum() == 56",
    "finetune_head": "correlation > 0.7",
    "sample_molecules": "same > 0.2 and len(valid) > 30 and len(relatives) >= 8",
    "optimize_qed": "found.mean_gain > 0.03",
}
"""What must hold after the last cell, so that the notebook's text is true."""
SLOW = dict.fromkeys(["finetune_head", "sample_molecules", "optimize_qed"], pytest.mark.slow)


def test_every_notebook_is_run():
    assert {path.stem for path in NOTEBOOKS} == SHOWN.keys()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_valid_and_has_no_outputs(path):
    book = json.loads(path.read_text())
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    assert book["metadata"]["language_info"]["name"] == "python"
    ids = [cell["id"] for cell in book["cells"]]
    assert len({*ids}) == len(ids) and all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", one) for one in ids)
    for cell in book["cells"]:
        code = {"outputs": [], "execution_count": None} if cell["cell_type"] == "code" else {}
        assert cell["cell_type"] in {"code", "markdown"}
        assert {key: cell[key] for key in cell.keys() - {"id", "cell_type", "source", "metadata"}} == code
        assert cell["metadata"] == {} and all(isinstance(line, str) for line in cell["source"])
    assert book["cells"][0]["source"][0].startswith("# ")
    settings = next("".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code")
    assert settings == 'MODEL = ""', "the first cell of code chooses the model"


@pytest.mark.parametrize("name", [pytest.param(name, marks=SLOW.get(name, ())) for name in SHOWN])
def test_the_cells_run_in_order(home: Home, tmp_path, name):
    path = PROJECT / "examples/notebooks" / f"{name}.ipynb"
    done = home.python("-c", RUN, path, SHOWN[name], folder=tmp_path, BIONEMO_HOME=str(tmp_path / "home"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("shown: True\n"), done.stdout
