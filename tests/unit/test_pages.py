"""Every block of code in the pages is run, composed or imported by a test, or stands in `UNTRIED` with the reason.

`PYTHONPATH=tests python tests/unit/test_pages.py` prints how many blocks each way tries.
"""

import ast
import re
import shlex
import sys
import types
from collections import Counter
from collections.abc import Iterator

import pytest
from documents import PROJECT, CodeBlock, code_blocks

PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").glob("*.md"))]
INSTALLED = "installed as a plugin and run"
COMPOSED = "commands composed"
EXECUTED = "Python executed"
IMPORTED = "Python compiled and its imports made; the rest needs a model"
UNTRIED = {
    "pip install -c constraints.txt": "the installation that tests run in",
    "python3 -m venv .venv": "`test_demo_from_a_bare_machine` runs it, marked slow",
    "python benchmarks/": "a measurement of hours",
    "$ python benchmarks/": "a measurement of hours",
    "wandb sync": "needs an account",
    "docker build": "needs a container engine",
    "   weights": "printed text",
    "$ sbatch": "needs a cluster; `test_clusters` runs the script",
    "$ NODES=2": "needs two machines; `test_clusters` runs the script",
    "$ MASTER_ADDR": "needs two machines",
    "bionemo-run -m": "a sweep; `tests/unit/cli` runs sweeps",
}
"""The first words of a block, and why no test tries it."""
NEED_A_MODEL = ("open_model", "bionemo_core.embed", "bionemo_core.train", "restore", "Client(", "ModelLatents(")
"""What is in a Python block that opens a model or a server; tests of the same functions call them."""
OF_A_PLUGIN = re.compile(r"=(mixer|lion|bases|even|train_top|stairs|letters|atoms|huber|uspto50k)\b|\.pir\b|,lines\]")
"""Words of commands that choose a component of a plugin that a page shows; tests of the page install and run it."""


def blocks() -> Iterator[tuple[str, CodeBlock]]:
    for page in PAGES:
        for block in code_blocks(page):
            yield page.name, block


def way(block: CodeBlock) -> str:
    """How a test tries a block; empty: none does."""
    untried = next((reason for words, reason in UNTRIED.items() if block.text.startswith(words)), "")
    if untried:
        return f"not tried: {untried}"
    if block.file:
        return INSTALLED
    if block.language == "python":
        return IMPORTED if any(word in block.text for word in NEED_A_MODEL) else EXECUTED
    return COMPOSED if commands(block) else ""


def commands(block: CodeBlock) -> list[str]:
    lines = re.sub(r"\\\n\s*", "", block.text).splitlines()
    return [line.removeprefix("$ ") for line in lines if line.removeprefix("$ ").startswith("bionemo-run ")]


def test_every_block_is_tried_or_has_a_reason() -> None:
    assert not [f"{page}:{block.line}" for page, block in blocks() if not way(block)]
    unused = [words for words in UNTRIED if not any(block.text.startswith(words) for _, block in blocks())]
    assert not unused, "no block begins with these words"


@pytest.mark.parametrize(
    ("page", "block"),
    [
        pytest.param(page, block, id=f"{page}:{block.line}")
        for page, block in blocks()
        if block.language != "console" and way(block) == COMPOSED
    ],
)
def test_commands_are_accepted(tmp_path, monkeypatch, capsys, page: str, block: CodeBlock) -> None:
    """Those of `console` blocks are tried by `tests/e2e/test_readme.py`."""
    from bionemo_core import cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path / "home"))
    for line in commands(block):
        arguments = [word for word in shlex.split(line, comments=True)[1:] if not word.startswith("$")]
        if OF_A_PLUGIN.search(line) or "=" not in arguments[0]:
            continue
        status = cli.main([*arguments, "--cfg", "job"])
        assert status == 0, f"{page}: {line}\n{capsys.readouterr().err}"


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(block, id=f"{page}:{block.line}")
        for page, block in blocks()
        if block.language == "python" and not block.file
    ],
)
def test_python_is_executed(monkeypatch, block: CodeBlock) -> None:
    tree = ast.parse(block.text.replace("num_layers=12, hidden_size=768", "num_layers=1, hidden_size=48"))
    if way(block) == IMPORTED:
        tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    module = types.ModuleType("block_of_a_page")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # a dataclass looks for its module
    exec(compile(tree, "page", "exec"), module.__dict__)


def test_console_blocks_show_the_prompt() -> None:
    """A command without the prompt would not be tried."""
    shown = [(f"{page}:{block.line}", block.text) for page, block in blocks() if block.language == "console"]
    assert not [where for where, text in shown if re.search("^bionemo-run ", text, re.MULTILINE)]


if __name__ == "__main__":
    for name, count in Counter(way(block) or "NOT TRIED" for _, block in blocks()).most_common():
        print(f"{count:4} {name}")
