"""The script that measures several GPUs, with runs that only write what a run would have written."""

import csv
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def scaling():
    sys.path.insert(0, str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("scaling", BENCHMARKS / "scaling.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["scaling"] = module
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(BENCHMARKS))


class Ended:
    """A process that has ended."""

    pid = 0

    def __init__(self, status):
        self.returncode = status

    def poll(self):
        return self.returncode

    def wait(self, timeout=None):
        return self.returncode


@pytest.fixture
def written(scaling, monkeypatch):
    """Every run that was started; each writes a log and metrics at once, and one that is named `broken` nothing."""
    started = {}

    class Written(scaling.Runs):
        broken = ""
        other_loss = ""

        def _start(self, name, overrides, gpu):
            keys = dict(one.split("=", 1) for one in overrides)
            started[name] = keys
            said = "     model  esm\n    memory  about 20.50 GiB at the peak of a step\n"
            (self.home / f"{name}.log").write_text(said)
            if name == self.broken:
                return Ended(2)
            folder = self.home / "runs" / name / "now"
            folder.mkdir(parents=True, exist_ok=True)
            gpus, rows = int(keys["trainer.devices"]), int(keys["trainer.max_steps"])
            with (folder / "metrics.csv").open("w") as file:
                table = csv.writer(file)
                table.writerow(["step", "reduced_train_loss", "tokens_per_second", "consumed_samples"])
                for step in range(1, min(rows, 4) + 1):
                    loss = 3 - 0.1 * step + 0.1 * (name == self.other_loss)
                    table.writerow([step, loss, 1000 * gpus * (0.9 if gpus > 1 else 1), 8 * step])
            if peaks := scaling.os.environ[scaling.PEAKS]:
                Path(peaks, "0").write_text("19.25")
            return Ended(0)

    monkeypatch.setenv(scaling.PEAKS, "")
    monkeypatch.setattr(scaling, "cards", lambda devices, tiny: f"{devices} cards")
    Written.started = started
    return Written


def test_the_table_has_rates_and_memory_of_all_numbers_of_gpus(scaling, written, capsys):
    assert scaling.main(["--devices", "4", "--steps", "4", "--cases", "data,layouts,largest"], written) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "4 cards"
    assert "| 650M, data | 1 | 1,000 | 1,000 | 1.000 | 19.25 | 20.50 | - |" in said
    assert "| 650M, data | 4 | 3,600 | 900 | 0.900 | 19.25 | 20.50 | - |" in said
    assert [line.split(" | ")[0][2:] for line in said[6:-1]] == [
        *("3B, one GPU", "3B, data", "3B, tensor 2 x data 2", "3B, pipeline 2 x data 2", "15B, bf16", "15B, fp8")
    ]
    runs = written.started
    assert runs["650M-data-2"]["batch.global_batch_size"] == "32"
    assert runs["3B-tensor-2-x-data-2-4"]["parallel.tensor_model_parallel_size"] == "2"
    assert runs["15B-fp8-4"]["trainer.precision"] == "fp8-mixed"


@pytest.mark.parametrize(("kind", "name"), [("broken", "losses-2"), ("other_loss", "losses-4")])
def test_a_run_that_fails_or_differs_is_said_and_the_others_go_on(scaling, written, capsys, kind, name):
    setattr(written, kind, name)
    assert scaling.main(["--devices", "4", "--steps", "4", "--cases", "losses,resume"], written) == 1
    said = capsys.readouterr().out
    assert {"losses-1", "losses-2", "losses-4", "resume", "resume-2", "resume-1"} == set(written.started)
    assert said.count("0.0e+00 |") == 4, "one run differs"
    assert "A RUN FAILED" in said


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.timeout(660)
def test_it_measures_two_processes_on_a_cpu() -> None:
    command = [sys.executable, str(BENCHMARKS / "scaling.py"), "--tiny", "--cases", "losses,resume"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count("e-0") + ran.stdout.count("0.0e+00") == 4
    assert "all good" in ran.stdout
