"""R7: a signal during a task keeps what is finished or leaves nothing; the same command then gives the whole result."""

import shutil
import signal
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest
from matrix import row
from runs import Home, Run

pytestmark = pytest.mark.faults

SHORT = ("trainer.max_steps=2", "trainer.val_check_interval=2", "checkpoint.every_n_steps=2", "scheduler=constant")
ONE_THREAD = ("trainer.num_threads=1", "trainer.progress_bar=false", "trainer.accelerator=cpu")
PROTEINS = files("bionemo_core") / "data" / "sample"
MOLECULES = "".join(f"{'C' * length}{end} m{length}{end}\n" for length in range(1, 20) for end in ("O", "N", "Cl"))
TINY_MOLMIM = ("model=molmim_xsmall", "model.num_layers=1", "model.hidden_size=32", "model.num_attention_heads=2")


@pytest.fixture(scope="module")
def model(home: Home) -> Path:
    return home.finish("name=r7-model", *SHORT).folder


@pytest.fixture(scope="module")
def commands(home: Home, model: Path) -> dict[str, Callable[[str], list[str]]]:
    """The command line of each task, for an output of this name; the quickest to come to an end last."""
    (fasta,) = Path(str(PROTEINS)).glob("*.fasta")
    labelled, molecules = home.path / "labels_of_r7", home.path / "molecules.smi"
    sequences = ["MKTAYIAKQRQISFVKSHFSRQ"[: 5 + number % 17] for number in range(60)]
    table = "".join(f"{sequence},{len(sequence) % 7}\n" for sequence in sequences)
    for split in ("train", "val", "test"):
        (labelled / split).mkdir(parents=True, exist_ok=True)
        (labelled / split / "x000.csv").write_text("sequence,target\n" + table)
    molecules.write_text(MOLECULES)
    small = ("task.tokens_per_batch=1024",)
    return {
        "embed": lambda out: [f"task.input={fasta}", f"task.output={out}.npz", "task.outputs=[hiddens]", *small],
        "prepare": lambda out: ["data=fasta", f"data.path={fasta}", f"home={out}", "task.num_workers=0"],
        "predict": lambda out: [
            "task.variants=" + str(variants(home)),
            f"task.wild_type={'MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ'}",
            f"task.output={out}.csv",
            "task.scoring=masked_marginals",
        ],
        "evaluate": lambda out: [f"task.output={out}", "task.split=val", "task.pseudo_perplexity=4"],
        "finetune": lambda out: [
            "task.kind=sequence_regression",
            "data=labelled_csv",
            f"data.dataset_path={labelled}",
            "data.target_column=target",
            "data.sequence_column=sequence",
            f"home={out}",
            "trainer.max_steps=4",
            "trainer.val_check_interval=4",
        ],
        "convert": lambda out: [f"task.output={out}"],
        "sample": lambda out: [*TINY_MOLMIM, f"task.input={molecules}", f"task.output={out}", "task.max_length=20"],
    }


def variants(home: Home) -> Path:
    path = home.path / "variants.csv"
    path.write_text("mutant\n" + "".join(f"K2{letter}\n" for letter in "ACDEFGHILMNPQRSTVWY"))
    return path


def start(home: Home, task: str, typed: list[str], model: Path, name: str) -> Run:
    source = [] if task in ("prepare", "sample") else [f"restore_from_path={model}"]
    device = [] if task == "prepare" else ONE_THREAD
    if task == "prepare":
        source = ["model=esm1nv_tiny"]
    plugins = "bionemo-esm,bionemo-molbart" if task == "sample" else "bionemo-esm"
    return home.task(f"task={task}", f"name={name}", *source, *typed, *device, BIONEMO_LOAD_PLUGINS=plugins)


def wait_for_handlers(run: Run) -> None:
    """Wait until the command has taken over SIGTERM; before that there is nothing to clean up."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        status = Path(f"/proc/{run.pid}/status").read_text()
        caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
        if int(caught, 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.01)
    raise AssertionError("no handler of SIGTERM came")


def results(folder: Path) -> set[str]:
    """What lies in the folder, without the times in names and without locks."""
    found = (
        path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".lock")
    )
    return {str(path) for path in found if "runs" not in path.parts}


def check(
    home: Home, task: str, typed: Callable[[str], list[str]], model: Path, case: str, draw, seconds: float
) -> None:
    """Stop the task, look at what it left, and let the same command finish."""
    folder = home.path / "r7" / case
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    number = signal.SIGTERM if draw.random() < 0.5 else signal.SIGINT
    run = start(home, task, typed(str(folder / "out")), model, case)
    wait_for_handlers(run)
    time.sleep(draw.random() * seconds)
    run.signal(number)
    time.sleep(draw.random() * 0.05)
    run.signal(number)  # a second one does no harm
    status, said = run.wait(), run.output()
    if status != 0:
        assert status in (75, 128 + number), f"{status}\n{said}"
        assert f"{number.name}" in said, said
        assert "Traceback" not in said, said
        left = results(folder)
        hidden = {name for name in left if any(part.startswith(".") for part in Path(name).parts)}
        assert not hidden, f"temporary files: {hidden}"
        if status != 75:
            assert not left, f"status {status} says that nothing was written: {left}"
        again = start(home, task, typed(str(folder / "out")), model, f"{case}-again")
        assert again.wait() == 0, again.output()


def test_r7_told_to_stop(home: Home, model: Path, commands: dict[str, Callable[[str], list[str]]]) -> None:
    matrix = row("R7", subset=3, full=20)
    seconds: dict[str, float] = {}
    names = list(commands)
    for case in range(matrix.n):
        task, draw = names[case % len(names)], matrix.draw(case)
        with matrix.case(f"{task}, case {case}"):
            whole = home.path / "r7" / task
            if task not in seconds:
                whole.mkdir(parents=True)
                began = time.monotonic()
                run = start(home, task, commands[task](str(whole / "out")), model, f"r7-{task}")
                wait_for_handlers(run)
                assert run.wait() == 0, run.output()
                seconds[task] = time.monotonic() - began
            check(home, task, commands[task], model, f"r7-{task}-{case}", draw, seconds[task])
            assert results(home.path / "r7" / f"r7-{task}-{case}") in (results(whole), set()), "not the whole result"
    matrix.check()


def test_a_home_that_cannot_be_written_is_no_hindrance_to_a_use(
    home: Home, model: Path, commands: dict[str, Callable[[str], list[str]]]
) -> None:
    output = home.path / "read-only-home"
    typed = [*commands["embed"](str(output)), "home=/dev/null/home"]
    run = start(home, "embed", typed, model, "read-only-home")
    assert run.wait() == 0, run.output()
    assert output.with_suffix(".npz").is_file()
    assert "warning: /dev/null/home cannot be written, so the prepared data are not kept" in run.output()
