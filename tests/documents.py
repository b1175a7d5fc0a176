"""The blocks of code in Markdown files."""

import os
import re
import tomllib
from pathlib import Path
from typing import NamedTuple

from runs import Home

PROJECT = Path(__file__).resolve().parents[1]


class CodeBlock(NamedTuple):
    """One fenced block: ```LANGUAGE FILE, where a file may be named."""

    language: str
    file: str
    text: str
    line: int


def code_blocks(path: Path) -> list[CodeBlock]:
    """The fenced blocks of a Markdown file, in order."""
    text = path.read_text()
    found = re.finditer(r"^```(\w*) ?(\S*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [CodeBlock(one[1], one[2], one[3], text.count("\n", 0, one.start()) + 1) for one in found]


def write_named_blocks(path: Path, folder: Path) -> list[str]:
    """Writes the blocks that name a file into `folder`; their names."""
    named = [block for block in code_blocks(path) if block.file]
    for block in named:
        target = folder / block.file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(block.text)
    return [block.file for block in named]


def pretend_installed(site: Path) -> None:
    """What pip would leave behind, without the network that building needs."""
    project = tomllib.loads((site / "pyproject.toml").read_text())["project"]
    folder = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    folder.mkdir()
    requires = "".join(f"Requires-Dist: {line}\n" for line in project["dependencies"])
    (folder / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n{requires}"
    )
    points = [f"{key} = {value}\n" for key, value in project["entry-points"]["bionemo.plugins"].items()]
    (folder / "entry_points.txt").write_text("[bionemo.plugins]\n" + "".join(points))


def python_path(folder: Path) -> str:
    """The value of PYTHONPATH with which a command finds the package in a folder, and what this process finds there."""
    return os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))


def pass_own_tests(home: Home, folder: Path) -> None:
    """Run the tests of a plugin that is in a folder, and that `pretend_installed` has installed; all must pass."""
    done = home.pytest("tests", folder=folder, PYTHONPATH=python_path(folder))
    assert done.returncode == 0, done.stdout + done.stderr
