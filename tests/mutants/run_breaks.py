"""Break the code on purpose, one small break at a time, and check that the tests notice.

`python tests/mutants/run_breaks.py [--check | --table] [NAME or AREA ...]`

The breaks are in `breaks.toml`. Each is applied to a temporary copy of the checkout, uncommitted changes included, and
the tests that are named for it run there. A break that no test notices has survived: that behaviour is not tested.

Exit status: 0 if every break was killed; 1 if one survived that is not marked `survives`, or one that is marked was
killed; 2 if the table does not fit the code, or the tests fail or cannot run for another reason.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import cache_from_source
from pathlib import Path
from time import perf_counter

ROOT = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).with_name("breaks.toml")
KILLED, SURVIVED, UNUSABLE = "killed", "survived", "unusable"
TESTS_FAILED = 1
"""The exit status of pytest when tests ran and some failed; others mean that they could not run."""


@dataclass(frozen=True)
class Break:
    """One deliberate break."""

    name: str
    area: str
    file: str
    find: str
    """Code that occurs exactly once in `file`."""
    replace: str
    tests: list[str]
    """Test files, or node ids of pytest, that must notice the break."""
    why: str
    """What a user would suffer."""
    survives: str = ""
    """Why no test notices it yet; empty for a break that must be killed."""


def read_breaks(table: Path) -> list[Break]:
    """Return the breaks of a table.

    Raises:
        ValueError: an entry lacks a key or has an unknown one, or a name occurs twice.
    """
    breaks: list[Break] = []
    for entry in tomllib.loads(table.read_text())["break"]:
        try:
            breaks.append(Break(**entry))
        except TypeError as error:
            raise ValueError(f"{table.name}: {entry.get('name', entry)}: {error}") from error
    names = [one.name for one in breaks]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{table.name}: these names occur twice: {', '.join(repeated)}")
    return breaks


def find_stale(breaks: Sequence[Break], root: Path) -> list[str]:
    """Return one line for everything in the breaks that no longer fits the code or the tests."""
    stale = []
    for one in breaks:
        path = root / one.file
        if not path.is_file():
            stale.append(f"{one.name}: {one.file} does not exist")
        elif (count := path.read_text().count(one.find)) != 1:
            stale.append(f"{one.name}: {one.find!r} occurs {count} times in {one.file}, expected once")
        if one.find == one.replace:
            stale.append(f"{one.name}: it changes nothing")
        if not one.tests:
            stale.append(f"{one.name}: it names no test")
        stale += [f"{one.name}: {problem}" for test in one.tests if (problem := _test_problem(test, root))]
    return stale


def _test_problem(test: str, root: Path) -> str:
    file, *names = test.split("::")
    path = root / file
    if not path.is_file():
        return f"{file} is not a file"
    text = path.read_text()
    if "PYTHONPATH" in text:
        return f"{file} sets PYTHONPATH, so its subprocesses would run the installed code without the break"
    function = names[0].partition("[")[0] if len(names) == 1 else ""  # tests in classes may be inherited
    if function and f"def {function}(" not in text:
        return f"{file} has no {function}"
    return ""


def copy_checkout(root: Path, target: Path) -> None:
    """Copy the files of a checkout as they are now, without what git ignores."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, check=True, capture_output=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (root / name).is_file():  # a deleted file stays listed until that is committed
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target / name)


def run_tests(copy: Path, tests: Sequence[str], *, write_bytecode: bool = False) -> tuple[int, str]:
    """Run tests against the code of the copy; return the exit status of pytest and its output."""
    sources = [copy, *sorted(path.parent for path in copy.glob("plugins/*/pyproject.toml"))]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sources))}  # goes before what is installed
    if not write_bytecode:
        env["PYTHONDONTWRITEBYTECODE"] = "1"
    options = ["-q", "-x", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
    command = [sys.executable, "-m", "pytest", *options, *tests]
    done = subprocess.run(command, cwd=copy, env=env, check=False, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@contextmanager
def applied(one: Break, copy: Path) -> Iterator[None]:
    """Have the break in the copy while the block runs."""
    path = copy / one.file
    whole = path.read_text()
    # A replacement of the same length within the same second would pass for the compiled original.
    Path(cache_from_source(str(path))).unlink(missing_ok=True)
    path.write_text(whole.replace(one.find, one.replace))
    try:
        yield
    finally:
        path.write_text(whole)


def judge(one: Break, copy: Path) -> tuple[str, str]:
    """Return the outcome of a break and what pytest printed."""
    with applied(one, copy):
        status, output = run_tests(copy, one.tests)
    outcome = {0: SURVIVED, TESTS_FAILED: KILLED}.get(status, UNUSABLE)
    return outcome, output


def run_all(breaks: Sequence[Break], root: Path) -> int:
    """Run the breaks one by one, print a table, and return the exit status."""
    with tempfile.TemporaryDirectory(prefix="breaks-") as folder:
        copy = Path(folder)
        copy_checkout(root, copy)
        started = perf_counter()
        union = list(dict.fromkeys(test for one in breaks for test in one.tests))
        status, output = run_tests(copy, union, write_bytecode=True)
        if status:
            print(f"{output}\nThe tests fail without any break, so they cannot judge one.")
            return 2
        width = max(len(one.name) for one in breaks)
        print(f"{'without a break':{width}}  {'':10}  passed    {perf_counter() - started:5.1f} s", flush=True)
        outcomes: dict[str, list[Break]] = {KILLED: [], SURVIVED: [], UNUSABLE: []}
        for one in breaks:
            began = perf_counter()
            outcome, output = judge(one, copy)
            outcomes[outcome].append(one)
            print(f"{one.name:{width}}  {one.area:10}  {outcome:8}  {perf_counter() - began:5.1f} s", flush=True)
            if outcome == UNUSABLE:
                print(output)
    return report(outcomes, perf_counter() - started)


def report(outcomes: dict[str, list[Break]], seconds: float) -> int:
    """Print what the outcomes mean, and return the exit status."""
    counts = ", ".join(f"{len(found)} {outcome}" for outcome, found in outcomes.items() if found)
    print(f"{sum(map(len, outcomes.values()))} breaks in {seconds:.0f} s: {counts}.")
    unexpected = [one for one in outcomes[SURVIVED] if not one.survives]
    for one in outcomes[SURVIVED]:
        print(f"{one.name} survived{f', as known: {one.survives}' if one.survives else ''}. {one.why}")
        print(f"  {one.file}: {one.find!r} -> {one.replace!r}; tests: {' '.join(one.tests)}")
    mended = [one.name for one in outcomes[KILLED] if one.survives]
    if mended:
        print(f"Now noticed, so take `survives` out of the table: {', '.join(mended)}")
    if outcomes[UNUSABLE]:
        names = ", ".join(one.name for one in outcomes[UNUSABLE])
        print(f"The tests could not run, so these breaks say nothing: {names}")
        return 2
    return 1 if unexpected or mended else 0


def format_table(breaks: Sequence[Break]) -> str:
    """Return the table of docs/reliability.md: the breaks of each area."""
    lines = ["| area | breaks | what is broken |", "|---|---|---|"]
    for area in dict.fromkeys(one.area for one in breaks):
        own = [one for one in breaks if one.area == area]
        names = ", ".join(f"{one.name} (survives: {one.survives})" if one.survives else one.name for one in own)
        lines.append(f"| {area} | {len(own)} | {names} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str], root: Path = ROOT, table: Path = TABLE) -> int:
    """Do what the command line asks, and return the exit status."""
    parser = argparse.ArgumentParser(description="Apply each deliberate break and check that the tests notice it.")
    parser.add_argument("names", nargs="*", help="names or areas of breaks; default: all")
    parser.add_argument("--check", action="store_true", help="only check that the table fits the code")
    parser.add_argument("--table", action="store_true", help="only print the table of docs/reliability.md")
    options = parser.parse_args(arguments)
    try:
        breaks = read_breaks(table)
    except ValueError as error:
        print(error)
        return 2
    if unknown := set(options.names) - {known for one in breaks for known in (one.name, one.area)}:
        print(f"no such break or area: {', '.join(sorted(unknown))}")
        return 2
    if options.names:
        breaks = [one for one in breaks if {one.name, one.area} & set(options.names)]
    if stale := find_stale(breaks, root):
        print("\n".join(stale))
        return 2
    if options.table:
        print(format_table(breaks), end="")
        return 0
    if options.check:
        print(f"{len(breaks)} breaks fit the code and the tests.")
        return 0
    return run_all(breaks, root)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
