"""The project's own files say the same of every plugin, and keep to the limits they set."""

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]
PLUGINS = sorted(path.parent for path in (PROJECT / "plugins").glob("*/pyproject.toml"))
CORE = tomllib.loads((PROJECT / "pyproject.toml").read_text())


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_plugin_pins_the_core_of_this_checkout(plugin):
    project = tomllib.loads((plugin / "pyproject.toml").read_text())["project"]
    assert f"bionemo-run=={CORE['project']['version']}" in project["dependencies"]
    assert "Private :: Do Not Upload" in project["classifiers"]
    assert len(project["entry-points"]["bionemo.plugins"]) == 1


@pytest.mark.parametrize("project", [PROJECT, *PLUGINS], ids=lambda path: path.name)
def test_a_distribution_says_what_an_index_shows(project):
    facts = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    assert facts["license"] == "Apache-2.0" and facts["license-files"] == ["LICENSE"]
    assert (project / "LICENSE").read_bytes() == (PROJECT / "LICENSE").read_bytes()
    assert (project / facts["readme"]).read_text().startswith("# ")
    assert 20 < len(facts["description"]) < 100 and facts["description"].endswith(".")
    assert facts["keywords"]
    versions = [one.rpartition(" ")[2] for one in facts["classifiers"] if one.startswith("Programming Language")]
    assert versions == ["3.11", "3.12", "3.13"] and facts["requires-python"] == ">=3.11,<3.14"
    assert facts["classifiers"] == sorted(facts["classifiers"])


def test_the_published_readme_needs_no_checkout():
    """`nox -s wheels` builds with it; a reader of it has installed the packages from an index."""
    pytest.importorskip("nox")
    found = importlib.util.spec_from_file_location("noxfile", PROJECT / "noxfile.py")
    noxfile = importlib.util.module_from_spec(found)
    found.loader.exec_module(noxfile)
    page = noxfile.without_checkout((PROJECT / "README.md").read_text())
    commands = re.findall(r"^.*pip install.*$", page, re.MULTILINE)
    named = " ".join(["bionemo-run", *(path.name for path in PLUGINS)])
    assert commands == [
        f"pip install {named}",
        "python3 -m venv .venv && .venv/bin/pip install bionemo-run bionemo-esm",
    ]
    with pytest.raises(ValueError, match=r"0 places are like"):
        noxfile.without_checkout(page)


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_tools_know_the_plugin(plugin):
    package = plugin.name.replace("-", "_")
    tools = CORE["tool"]
    contracts = {one["name"]: one for one in tools["importlinter"]["contracts"]}
    assert package in tools["importlinter"]["root_packages"]
    assert package in contracts["The core imports no plugin"]["forbidden_modules"]
    assert package in contracts["A plugin uses the public part of the core"]["source_modules"]
    assert package in tools["coverage"]["run"]["source"]
    assert package in tools["ruff"]["lint"]["isort"]["known-first-party"]
    assert f"plugins/{plugin.name}" in tools["mypy"]["mypy_path"]


@pytest.mark.parametrize("project", [PROJECT, *PLUGINS], ids=lambda path: path.name)
def test_every_dependency_has_a_lowest_version_that_can_be_tried(project):
    """`nox -s lowest` makes its pins of these bounds."""
    facts = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    extras = facts.get("optional-dependencies", {}).values()
    lines = [*facts["dependencies"], *(line for own in extras for line in own)]
    assert [line for line in lines if not re.match(r"bionemo-|[\w-]+(\[[\w,-]+\])?>=\d", line)] == []


def test_core_version_is_one():
    from bionemo_core import __version__

    assert __version__ == CORE["project"]["version"]


def test_constraints_admit_what_the_core_asks_for():
    from packaging.requirements import Requirement

    pinned = {}
    for line in (PROJECT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition("==")
            pinned[name] = version
    asked = [Requirement(line) for line in CORE["project"]["dependencies"]]
    assert pinned.keys() <= {one.name for one in asked}
    for one in asked:
        assert one.name not in pinned or pinned[one.name] in one.specifier, one


def test_contributing_is_short():
    assert len((PROJECT / "CONTRIBUTING.md").read_text().splitlines()) < 80


def test_fault_rows_of_the_documentation_exist():
    text = (PROJECT / "docs/reliability.md").read_text()
    named = set(re.findall(r"\b([A-Z]\d)\b", text))
    there = {path.name.split("_")[1].upper() for path in (PROJECT / "tests/faults").rglob("test_*.py")}
    assert named <= there, f"no test for {sorted(named - there)}"


def test_the_ways_through_the_code_name_what_exists():
    """The numbered lists of the architecture name files and functions, so a renamed one is noticed."""
    text = (PROJECT / "docs/architecture.md").read_text()
    lines = re.findall(r"^\d+\. `([\w/.-]+\.py)`, `([\w.]+)`(?: and `([\w.]+)`)?:", text, re.MULTILINE)
    assert len(lines) == 41
    for path, *names in lines:
        file = PROJECT / path if path.startswith("plugins/bionemo-") else PROJECT / "bionemo_core" / path
        code = file.read_text()
        for name in filter(None, names):
            for part in name.split("."):
                assert re.search(rf"^\s*(?:def|class) {part}\b", code, re.MULTILINE), f"{path} has no {name}"


def test_the_site_has_every_page_and_notebook():
    """`nox -s site` builds the pages of its navigation; here none is forgotten."""
    pages = []

    def collect(entry: object) -> None:
        if isinstance(entry, str):
            pages.append(entry)
        else:
            for one in entry.values() if isinstance(entry, dict) else entry:
                collect(one)

    collect(yaml.safe_load((PROJECT / "mkdocs.yml").read_text())["nav"])
    notebooks = {f"{path.relative_to(PROJECT)}.md" for path in (PROJECT / "examples").rglob("*.ipynb")}
    assert {path.name for path in (PROJECT / "docs").glob("*.md")} | notebooks <= {*pages}
    modules = [page.removeprefix("reference/")[:-3] for page in pages if page.startswith("reference/")]
    for module in modules:
        place = PROJECT / "bionemo_core" / module.replace(".", "/")
        assert place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()
    code = (PROJECT / "docs/site_pages.py").read_text()
    assert re.findall(r'"([\w.]+)"', code.partition("REFERENCE = (")[2].partition(")")[0]) == sorted(modules)
