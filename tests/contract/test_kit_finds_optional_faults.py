"""The kit's checks of optional hooks, on the plugin of `docs/plugin_hooks.md` with one fault."""

import pytest
from documented_hooks import FILES
from small_plugin import finds

from bionemo_core.testing import tokenizers
from bionemo_core.testing.optional import loggers, oracles, readers, schedules


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
        ("// max_steps", "// (max_steps - 1)", ["a run of 1 step", "ZeroDivisionError"]),
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


# Oracles.

SCORES = "return [-float(abs(count - self.wanted)) for count in heavy]"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ((SCORES, SCORES), None),
        ((SCORES, "return [0.0 for count in heavy]"), ["all score 0.0", "can guide no search"]),
        ((SCORES, "return [count - max(heavy) + 9.0 for count in heavy]"), ["among others and", "by itself"]),
        ((SCORES, "return sum(heavy)"), ["scores of shape [] for 5 texts, expected [5]"]),
        ((SCORES, "return [float('nan') for count in heavy]"), ["'CCO' has no finite score", "`examples`"]),
        ((SCORES, "self.wanted += 1\n        " + SCORES), ["when it is asked again", "other scores"]),
        ((SCORES, SCORES.replace("for count", "+ id(self) for count")), ["from a second build"]),
        (("return Atoms(wanted)", "return lambda texts, starts: Atoms(wanted)(texts, starts)"), ["another process"]),
        (("return Atoms(wanted)", "return wanted"), ["returns int, expected a function"]),
        ((SCORES, "return [1 / 0 for count in heavy]"), ["failed with ZeroDivisionError"]),
    ],
    ids=["none", "constant", "company", "shape", "nan", "state", "build", "lambda", "kind", "raises"],
)
def test_an_oracle_with_a_fault(extras, changes: tuple[str, str], message: list[str] | None):
    subject = extras("sizes.py", *changes)
    component = subject.component("oracle", "atoms")
    if message is None:
        oracles.check_oracle(subject, component)
        return
    with finds("oracle 'atoms'", *message):
        oracles.check_oracle(subject, component)


# File formats.

STRIP = 'line.strip().rstrip(b"*")'
YIELD = 'yield Record(name, b"".join(sequence), start)'
ERROR = 'raise DataError(f"{where}:{number}: {line[:20]!r}'


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ((YIELD, YIELD), None),
        (('(".pir",)', '(".fasta",)'), ["the core reads files that end in '.fasta' itself"]),
        (('(".pir",)', '".pir"'), ["extensions is '.pir', expected a sequence"]),
        (('(".pir",)', '("pir",)'), ["'pir' is not in lower case with one dot"]),
        ((YIELD, 'yield (name, b"".join(sequence))'), ["expected bionemo_core.data.readers.Record"]),
        ((YIELD, YIELD.replace("name", "title")), None),
        ((YIELD, YIELD.replace("name", 'b"x"')), ["the same id"]),
        ((YIELD, YIELD.replace("start", "0")), ["number lines from 1"]),
        (
            (*("text_lines(stream, where)", "stream"), *(STRIP, STRIP.replace("strip().", "").replace("*", "\\n*"))),
            ["with the line ends of Windows"],
        ),
        ((ERROR, ERROR.replace("{where}", "pir")), ["does not name the file"]),
        ((ERROR, 'raise KeyError(f"{where}'), ["expected records or a bionemo_core.errors.DataError", "KeyError"]),
        (('    version = "1"\n', ""), ["lacks a member of bionemo_core.protocols.Reader"]),
    ],
    ids=["none", "core", "text", "dot", "tuple", "titles", "ids", "lines", "ends", "where", "raises", "member"],
)
def test_a_reader_with_a_fault(extras, changes: tuple[str, str], message: list[str] | None):
    subject = extras("pir.py", *changes)
    component = subject.component("reader", "pir")
    if message is None:
        readers.check_reader(subject, component)
        return
    with finds("reader 'pir'", *message):
        readers.check_reader(subject, component)


def test_a_reader_takes_no_parameters(extras):
    with finds("reader 'pir': a reader takes no parameters"):
        extras("pir.py", "def pir()", "def pir(gaps: bool = True)").components()


# Sample data.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("range(256)", "range(256)"), None),
        (("range(256)", "range(9)"), ["sample_texts has 9 texts, expected 100 or more"]),
        (("random.Random(0)", "random.Random()"), ["differs from call to call"]),
        (('"ACGT", k=3', '"ACGU", k=3'), ["outside the alphabet"]),
    ],
    ids=["none", "few", "seed", "alphabet"],
)
def test_sample_data_with_a_fault(extras, changes: tuple[str, str], message: list[str] | None):
    subject = extras("bases.py", *changes)
    component = subject.component("tokenizer", "bases")
    if message is None:
        tokenizers.check_tokenizer(subject, component)
        return
    with finds("tokenizer 'bases'", *message):
        tokenizers.check_tokenizer(subject, component)


@pytest.mark.parametrize(
    ("names", "values", "message"),
    [
        ("['a']", "(b'1', b'')[: len(columns)]", None),
        ("[]", "(b'',) * len(columns)", ["column_names finds none in its example"]),
        ("['a', 'b']", "(b'1', b'', b'')[: len(columns)]", ["no record of its example has a value 'b'"]),
        ("['a']", "(b'1',)[: len(columns)]", ["has not one value for each of"]),
        ("stream.nothing()", "()", ["reading the named values of its example"]),
    ],
    ids=["none", "no name", "no value", "too few", "raises"],
)
def test_a_reader_with_named_values(extras, names: str, values: str, message: list[str] | None):
    version = '    version = "1"\n'
    subject = extras(
        "pir.py",
        *("stream, where):", "stream, where, columns=()):"),
        *(YIELD, f"{YIELD[:-1]}, columns={values})"),
        *(version, f"{version}\n    def column_names(self, stream, where):\n        return {names}\n"),
    )
    component = subject.component("reader", "pir")
    if message is None:
        readers.check_reader(subject, component)
        return
    with finds("reader 'pir'", *message):
        readers.check_reader(subject, component)
