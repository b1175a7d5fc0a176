"""The loggers go into the run folder, can be typed by hydra-zen, and leak no key."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from bionemo_core.errors import ConfigError
from bionemo_core.plugins import configure
from bionemo_core.reporting import loggers
from bionemo_core.reporting.loggers import RunContext

CANARY = "0123456789abcdef0123456789abcdefCANARY00"


def _run(tmp_path, resumed_step=None):
    return RunContext(tmp_path / "run", "nice-run", resumed_step)


def _files_with(folder, text):
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


@pytest.fixture(autouse=True)
def no_key_anywhere(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


@pytest.mark.processes
def test_import_is_light():
    code = "import sys, bionemo_core.reporting.loggers; assert not {'torch', 'pytorch_lightning'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("factory", "keys"),
    [
        (loggers.csv, set()),
        (loggers.tensorboard, set()),
        (
            loggers.wandb,
            {"project", "name", "entity", "offline", "tags", "group", "job_type", "notes", "log_checkpoint"},
        ),
    ],
)
def test_the_configuration_holds_the_users_keys_only(factory, keys):
    assert {key.name for key in configure(factory).keys} == keys


def test_csv_writes_in_the_run_folder(tmp_path):
    logger = loggers.csv(_run(tmp_path))
    logger.log_metrics({"loss": 1.0}, step=1)
    assert (tmp_path / "run" / "metrics.csv").read_text() == "step,loss\n1,1.0\n"
    assert logger.save_dir == str(tmp_path / "run")


def test_tensorboard_drops_what_came_after_the_checkpoint(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for resumed, steps in ((None, (1, 2, 3)), (1, (2,))):
        logger = loggers.tensorboard(_run(tmp_path, resumed))
        for step in steps:
            logger.log_metrics({"loss": step + 10 * (resumed or 0)}, step=step)
        logger.finalize("done")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 1.0), (2, 12.0)]


@pytest.mark.parametrize(("factory", "extra"), [(loggers.wandb, "wandb"), (loggers.tensorboard, "tensorboard")])
def test_a_missing_package_says_what_to_install(tmp_path, monkeypatch, factory, extra):
    monkeypatch.setattr(loggers, "has_package", lambda module: False)
    with pytest.raises(ConfigError, match=f"pip install {extra}"):
        factory(_run(tmp_path))


def _mode(logger):
    return "offline" if logger._offline else "online"


def test_wandb_is_offline_without_a_key_and_online_with_one(tmp_path, monkeypatch):
    assert _mode(loggers.wandb(_run(tmp_path))) == "offline"
    with pytest.raises(ConfigError, match="offline=false, but there is no key"):
        loggers.wandb(_run(tmp_path), offline=False)

    (tmp_path / "netrc").write_text(f"machine api.wandb.ai login user password {CANARY}\n")
    (tmp_path / "netrc").chmod(0o600)
    assert _mode(loggers.wandb(_run(tmp_path))) == "online"
    (tmp_path / "netrc").unlink()

    monkeypatch.setenv("WANDB_API_KEY", CANARY)
    assert _mode(loggers.wandb(_run(tmp_path))) == "online"
    assert _mode(loggers.wandb(_run(tmp_path), offline=True)) == "offline"


def test_of_the_dotenv_file_only_the_key_is_read(tmp_path, monkeypatch):
    import os

    monkeypatch.setenv("WANDB_API_KEY", "")  # so that it is put back as it was
    (tmp_path / "cwd" / ".env").write_text(f"OTHER_SECRET=x\nWANDB_API_KEY={CANARY}\n")
    assert _mode(loggers.wandb(_run(tmp_path))) == "online"
    assert os.environ["WANDB_API_KEY"] == CANARY
    assert "OTHER_SECRET" not in os.environ


def test_wandb_is_told_group_kind_and_notes(tmp_path):
    logger = loggers.wandb(_run(tmp_path), group="g", job_type="pretrain", notes="n")
    assert {key: logger._wandb_init[key] for key in ("group", "job_type", "notes")} == {
        "group": "g",
        "job_type": "pretrain",
        "notes": "n",
    }


def test_a_resumed_run_keeps_its_wandb_id_and_another_gets_its_own(tmp_path):
    first = loggers.wandb(_run(tmp_path)).version
    assert first
    assert loggers.wandb(_run(tmp_path, 5)).version == first
    assert loggers.wandb(RunContext(tmp_path / "other", "other")).version != first


@pytest.mark.parametrize(
    ("asked", "offline", "status", "sent"),
    [(True, False, "success", 1), (True, True, "success", 1), (True, False, "failed", 0), (False, False, "success", 0)],
)
def test_the_newest_checkpoint_becomes_an_artefact_that_opens_as_a_run(
    tmp_path, monkeypatch, asked, offline, status, sent
):
    monkeypatch.setenv("WANDB_API_KEY", CANARY)
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    run = _run(tmp_path)
    for step in (4, 8):
        folder = run.folder / "checkpoints" / f"step-{step:08d}"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
    (run.folder / "run.json").write_text("{}")
    logger = loggers.wandb(run, log_checkpoint=asked, offline=offline)
    told = []
    logger._experiment = SimpleNamespace(id="abc", log_artifact=lambda one, aliases: told.append((one, aliases)))
    logger.finalize(status)
    logger.finalize(status)
    assert len(told) == sent
    for artefact, aliases in told:
        assert (artefact.name, artefact.type, aliases) == ("model-abc", "model", ["latest", "step-00000008"])
        entries = artefact.manifest.entries
        assert set(entries) == {"run.json", "checkpoints/step-00000008/manifest.json"}
        copied = entries["run.json"].local_path != str(run.folder / "run.json")
        assert copied == offline, "a copy is made only where a resume may remove the files before they are sent"


def test_an_artefact_that_is_refused_does_not_fail_the_run(tmp_path, caplog):
    logger = loggers.wandb(_run(tmp_path), log_checkpoint=True)
    (tmp_path / "run" / "checkpoints" / "step-00000001").mkdir(parents=True)
    logger._experiment = SimpleNamespace(id="abc")
    logger.finalize("success")
    assert "the checkpoint was not sent as an artefact" in caplog.text


_OFFLINE_RUN = """
import sys
from pathlib import Path
from bionemo_core.reporting.loggers import RunContext, wandb
if __name__ == "__main__":
    logger = wandb(RunContext(Path(sys.argv[1]), "run"), offline=True, tags=["t"])
    logger.log_metrics({"loss": 1.0}, step=1)
    logger.experiment.finish()
"""


@pytest.mark.processes
def test_an_offline_wandb_run_writes_no_key_anywhere(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", CANARY)
    monkeypatch.setenv("HF_TOKEN", CANARY)
    (tmp_path / "cwd" / ".env").write_text(f"WANDB_API_KEY={CANARY}\n")
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home" / name))
    script = tmp_path / "script.py"
    script.write_text(_OFFLINE_RUN)
    ran = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "run"), f"--key={CANARY}"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    assert CANARY not in ran.stdout + ran.stderr
    assert [path for path in _files_with(tmp_path, CANARY) if path.name != ".env"] == []
