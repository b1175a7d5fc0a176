"""The table of deliberate breaks fits the code, and the runner tells breaks that tests notice from those they miss."""

import re
import subprocess
from pathlib import Path

import pytest
from run_breaks import (
    KILLED,
    ROOT,
    SURVIVED,
    TABLE,
    UNUSABLE,
    Break,
    find_stale,
    format_table,
    main,
    read_breaks,
    report,
)

DOUBLING = "def double(number):\n    return number * 2\n"
KEYS = ("name", "area", "file", "find", "replace", "why")
TRIPLES = ("triples", "numbers", "doubling.py", "number * 2", "number * 3", "All is too large.")
# The test asks for 2 only, which is where the two agree.
SQUARES = ("squares", "numbers", "doubling.py", "number * 2", "number ** 2", "Most is too large.")
RENAMED = ("renamed", "names", "doubling.py", "def double", "def twice", "Nothing runs.")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A checkout of one function and its test."""
    (tmp_path / "doubling.py").write_text(DOUBLING)
    test = "from doubling import double\n\n\ndef test_doubling():\n    assert double(2) == 4\n"
    (tmp_path / "test_doubling.py").write_text(test)
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    return tmp_path


def table_of(project: Path, *breaks: tuple[str, ...], **more: str) -> Path:
    """A table of these breaks, each with `more` keys or other values of its keys."""
    entries = [{**dict(zip(KEYS, one, strict=True)), **more} for one in breaks]
    texts = ["\n".join(f"{key} = '{value}'" for key, value in entry.items()) for entry in entries]
    path = project / "breaks.toml"
    path.write_text("".join(f"[[break]]\n{text}\ntests = ['test_doubling.py::test_doubling']\n" for text in texts))
    return path


def test_every_break_fits_the_code():
    assert find_stale(read_breaks(TABLE), ROOT) == []


AREAS = ("checkpoint", "order", "masks", "losses", "schedules", "readers", "connectors", "resume")


def test_the_areas_that_matter_most_have_breaks():
    breaks = read_breaks(TABLE)
    assert len(breaks) >= 60
    for area in AREAS:
        assert sum(one.area == area for one in breaks) >= 5, area


def test_the_documentation_has_the_table():
    """`python tests/mutants/run_breaks.py --table` prints it."""
    assert format_table(read_breaks(TABLE)) in (ROOT / "docs/reliability.md").read_text()


def test_outcomes(project: Path, capsys: pytest.CaptureFixture[str]):
    assert main([], project, table_of(project, TRIPLES, SQUARES, RENAMED)) == 2
    said = capsys.readouterr().out
    for name, outcome in (("triples", KILLED), ("squares", SURVIVED)):
        assert re.search(rf"^{name} +numbers +{outcome} ", said, re.MULTILINE)
    assert "squares survived. Most is too large." in said
    assert "these breaks say nothing: renamed" in said
    assert (project / "doubling.py").read_text() == DOUBLING


def test_tests_that_fail_anyway_judge_nothing(project: Path, capsys: pytest.CaptureFixture[str]):
    (project / "doubling.py").write_text(DOUBLING.replace("number * 2", "2 * number * 2"))
    assert main([], project, table_of(project, TRIPLES)) == 2
    assert "The tests fail without any break" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("outcome", "survives", "status", "said"),
    [
        (KILLED, "", 0, "1 killed"),
        (SURVIVED, "", 1, "squares survived. Most"),
        (SURVIVED, "a test is missing", 0, "squares survived, as known: a test is missing. Most"),
        (KILLED, "a test is missing", 1, "take `survives` out of the table: squares"),
        (UNUSABLE, "", 2, "these breaks say nothing: squares"),
    ],
)
def test_exit_status(capsys: pytest.CaptureFixture[str], outcome: str, survives: str, status: int, said: str):
    one = Break(**dict(zip(KEYS, SQUARES, strict=True)), tests=["test_doubling.py"], survives=survives)
    assert report({KILLED: [], SURVIVED: [], UNUSABLE: [], outcome: [one]}, 1.0) == status
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"find": "number * 4"}, "occurs 0 times in doubling.py"),
        ({"find": "number"}, "occurs 2 times in doubling.py"),
        ({"file": "halving.py"}, "halving.py does not exist"),
        ({"replace": "number * 2"}, "it changes nothing"),
        ({"reason": "none"}, "unexpected keyword argument 'reason'"),
    ],
)
def test_a_break_that_does_not_fit_is_named(project: Path, capsys: pytest.CaptureFixture[str], changes, said):
    assert main(["--check"], project, table_of(project, SQUARES, **changes)) == 2
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("def test_other():\n    pass\n", "test_doubling.py has no test_doubling"),
        ("PYTHONPATH = 1\ndef test_doubling():\n    pass\n", "would run the installed code"),
    ],
)
def test_a_test_that_does_not_fit_is_named(project: Path, capsys: pytest.CaptureFixture[str], content: str, said: str):
    (project / "test_doubling.py").write_text(content)
    assert main(["--check"], project, table_of(project, SQUARES)) == 2
    assert said in capsys.readouterr().out


def test_breaks_are_chosen_by_name_or_area(project: Path, capsys: pytest.CaptureFixture[str]):
    table = table_of(project, TRIPLES, SQUARES, RENAMED)
    for chosen, count in (("numbers", 2), ("renamed", 1)):
        assert main(["--check", chosen], project, table) == 0
        assert f"{count} breaks fit the code and the tests" in capsys.readouterr().out
    assert main(["--check", "letters"], project, table) == 2
    assert "no such break or area: letters" in capsys.readouterr().out
