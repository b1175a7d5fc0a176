"""The kit's checks of optional hooks, on the plugin of `docs/plugin_hooks.md` with one fault."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from documents import PROJECT, code_blocks
from small_plugin import finds

from bionemo_core.testing import KitSettings, Subject, installed, make_plugin
from bionemo_core.testing.optional import loggers, schedules

NAME = "bionemo_extras"
FILES = {
    Path(block.file).name: block.text
    for block in code_blocks(PROJECT / "docs/plugin_hooks.md")
    if block.file.startswith(NAME)
}


@pytest.fixture
def extras(tmp_path: Path) -> Iterator[Callable[..., Subject]]:
    """Return a function that makes the documented plugin, with text replaced in one file, as a subject."""
    with ExitStack() as stack:

        def make(file: str = "__init__.py", *changes: str) -> Subject:
            files = dict(FILES)
            for old, new in zip(changes[::2], changes[1::2], strict=True):
                assert old in files[file], f"{file} has no {old!r}"
                files[file] = files[file].replace(old, new)
            plugin = make_plugin(tmp_path / "plugin", NAME, files.pop("__init__.py"), files=files)
            stack.enter_context(installed(plugin))
            return Subject(KitSettings(plugin.distribution), tmp_path / "work")

        yield make


def test_examples_are_short():
    assert {name: len(text.splitlines()) for name, text in FILES.items() if len(text.splitlines()) > 40} == {}


# Schedules.

RATE = "return base_lr * 0.5 **"
COUNTS = 'object.__setattr__(self, "n", getattr(self, "n", 0) + 1)\n        return base_lr / self.n + 0 *'


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (RATE, RATE, None),
        (RATE, "return -base_lr + 0 *", ["step 0 of 1 has the rate -", "expected a float of 0 or more"]),
        (RATE, "return 0 * base_lr *", ["each step of a run of 1 has the rate 0"]),
        (RATE, "return None if step > 50 else base_lr + 0 *", ["step 51 of 100 has the rate None"]),
        (RATE, COUNTS, ["depending on which", "were asked before"]),
        ("// max_steps", "// (max_steps - 1)", ["a run of 1 steps", "ZeroDivisionError"]),
        ("def __call__", "def rate", ["returns Stairs, expected a function"]),
    ],
    ids=["none", "negative", "zero", "no number", "counts", "one step", "kind"],
)
def test_a_schedule_with_a_fault(extras, old: str, new: str, message: list[str] | None):
    subject = extras("stairs.py", old, new)
    component = subject.component("scheduler", "stairs")
    if message is None:
        schedules.check_schedule(subject, component)
        return
    with finds("scheduler 'stairs'", *message):
        schedules.check_schedule(subject, component)


# Loggers.

PRINT = "print(step, *words, file=file)"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (PRINT, PRINT, None),
        (PRINT, "metrics.clear()", ["changes the metrics in place"]),
        (PRINT, "raise KeyError('gone')", ["training with it failed with KeyError", "gone"]),
        ("run.folder / ", "run.folder.__class__() / ", ["writes lines.txt to the working folder"]),
        ('open("a")', 'open("x" if step == run.resumed_step else "a")', ["in a resumed run: training with it failed"]),
        ("class Lines(Logger)", "class Lines", ["returns Lines, expected a pytorch_lightning.loggers.Logger"]),
        ('"lines.txt"', 'f"lines-{run.resumed_step}.txt"', None),
    ],
    ids=["none", "changes metrics", "raises", "elsewhere", "resume", "kind", "new file"],
)
def test_a_logger_with_a_fault(extras, old: str, new: str, message: list[str] | None):
    subject = extras("lines.py", old, new)
    component = subject.component("logger", "lines")
    if message is None:
        loggers.check_logger(subject, component)
        return
    with finds("logger 'lines'", *message):
        loggers.check_logger(subject, component)


def test_a_logger_that_forgets(extras):
    removes = "for old in run.folder.iterdir():\n        old.unlink()\n    return Lines()"
    own_name = ('"lines.txt"', 'f"lines-{run.resumed_step}.txt"')
    subject = extras("lines.py", "return Lines()", removes, *own_name)
    with finds("logger 'lines': a resumed run removes lines-None.txt"):
        loggers.check_logger(subject, subject.component("logger", "lines"))
