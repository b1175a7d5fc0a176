"""A user's YAML that cannot be read is a message with file, line and column; Hydra's own keys are refused."""

from pathlib import Path

import pytest

from bionemo_core import cli
from bionemo_core.config.v1.yaml_reading import read_yaml
from bionemo_core.errors import ConfigError

pytest.importorskip("bionemo_esm")

UNREADABLE = {
    "a tab": (b"trainer:\n\tmax_steps: 3\n", ":2:1: .*indent with spaces, not with tabs"),
    "an open mapping": (b"trainer: {max_steps: 3\n", ":2:1: .*expected ',' or '}'"),
    "Latin-1": ("seed: 1\nname: café\n".encode("latin-1"), ":2:10: byte 0xe9 is not UTF-8"),
    "UTF-16": ("name: a\n".encode("utf-16"), ":1:1: byte 0xff is not UTF-8"),
    "a Python object": (b'name: !!python/object/apply:os.system ["id"]\n', ":1:7: .*write plain values only"),
    "a key twice": (b"seed: 1\nseed: 2\n", ":2:1: .*duplicate key seed"),
    "a zero byte": (b"name: x\0y\n", "special characters are not allowed"),
    "a loop": (b"a: &x [*x]\n", "refers to itself|recursive aliases"),  # OmegaConf 2.4 words it so
    "a list": (b"- 1\n", "expected keys with values"),
    "a number": (b"5\n", "expected keys with values"),
    "words": (b"just words\n", "expected keys with values"),
    "two documents": (b"seed: 1\n---\nseed: 2\n", ":2:1: .*a second document begins here"),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_what_cannot_be_read_is_named_with_its_place(what, tmp_path, capsys):
    content, words = UNREADABLE[what]
    path = tmp_path / "experiment/mine.yaml"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as raised:
        read_yaml(path)
    assert cli.main(["--config-dir", str(tmp_path), "+experiment=mine", "model=esm1nv_tiny", "--cfg", "job"]) == 2
    assert f"error[config]: {raised.value}" in capsys.readouterr().err


REFUSED = {
    "hydra: {run: {dir: made}}": "hydra.run.dir",
    "hydra.run.dir: made": "hydra.run.dir",
    "hydra: {callbacks: {x: {_target_: subprocess.Popen, args: [touch, made]}}}": "hydra.callbacks.x",
    "# @package hydra.callbacks\nx: {a: 1}": "hydra.callbacks.x",
    "defaults: [{override /hydra/job_logging: default}]": "job_logging",
    "defaults: [/data@hydra.run: sample]": "hydra.run",
    "model: {_target_: os.system}": "model._target_",
    "hydra: {sweeper: {_target_: os.system}}": "hydra.sweeper._target_",
}


@pytest.mark.parametrize("text", REFUSED)
def test_keys_of_hydra_are_refused(text, composed, tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"mine\.yaml: .*{REFUSED[text]}.* not allowed"):
        composed("+experiment=mine", "model=esm1nv_tiny", folder=tmp_path)
    assert not Path("made").exists()


def test_a_group_of_hydra_in_the_users_folder_is_refused_too(composed, tmp_path):
    for folder in ("experiment", "hydra/callbacks"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "hydra/callbacks/mine.yaml").write_text("x: {a: 1}\n")
    (tmp_path / "experiment/mine.yaml").write_text("trainer: {max_steps: 3}\n")
    with pytest.raises(ConfigError, match=r"hydra[./]callbacks"):
        composed("+experiment=mine", "model=esm1nv_tiny", "+hydra/callbacks=mine", folder=tmp_path)


def test_a_group_that_is_null_is_named(tmp_path, capsys):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text("trainer: null\n")
    assert cli.main(["--config-dir", str(tmp_path), "+experiment=mine", "model=esm1nv_tiny"]) == 2
    assert "error[config]: trainer: got null, expected keys such as trainer." in capsys.readouterr().err


def test_keys_of_sweeps_are_taken(composed, tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text(
        "hydra: {sweeper: {params: {seed: '1,2'}}}\ntrainer: {max_steps: 3}\n"
    )
    assert composed("+experiment=mine", "model=esm1nv_tiny", folder=tmp_path).trainer.max_steps == 3


def test_an_unknown_key_of_a_file_is_named(tmp_path, capsys):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text("trainer: {max_step: 3}\n")
    assert cli.main(["--config-dir", str(tmp_path), "+experiment=mine", "model=esm1nv_tiny"]) == 2
    error = capsys.readouterr().err
    assert "In 'experiment/mine': the key 'trainer.max_step' does not exist. Did you mean 'trainer.max_steps'" in error
