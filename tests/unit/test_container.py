"""The container's files name what exists, and start what the command accepts; nothing here needs a builder."""

import re
import tomllib
from pathlib import Path

import yaml

from bionemo_core import cli
from bionemo_core.tasks.settings import Serve

PROJECT = Path(__file__).resolve().parents[2]
RECIPE = (PROJECT / "Containerfile").read_text()
COMPOSE = yaml.safe_load((PROJECT / "deploy/compose.yaml").read_text())
SERVER = COMPOSE["services"]["serve"]


def _argument(name: str) -> str:
    (found,) = re.findall(rf'^ARG {name}="?([^"\n]*)"?$', RECIPE, re.MULTILINE)
    return found


def test_the_image_has_every_plugin_and_extras_that_exist():
    assert _argument("PLUGINS").split() == sorted(path.parent.name for path in PROJECT.glob("plugins/*/pyproject.toml"))
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert set(_argument("EXTRAS").split(",")) <= project["optional-dependencies"].keys()
    assert f'"torch>={_bound(project, "torch")}"' in RECIPE


def _bound(project: dict, name: str) -> str:
    (line,) = [line for line in project["dependencies"] if line.startswith(f"{name}>=")]
    return line.removeprefix(f"{name}>=")


def test_the_image_does_not_run_as_root_and_its_user_owns_where_it_writes():
    last_stage = RECIPE.rpartition("\nFROM ")[2]
    (user,) = re.findall(r"^USER (\d+)$", last_stage, re.MULTILINE)
    assert int(user) > 0 and f"--uid {user}" in last_stage
    written = [mount for mount in SERVER["tmpfs"] if mount != "/tmp"]
    assert written and all(mount.endswith(f":uid={user}") for mount in written)
    assert SERVER["read_only"] and SERVER["cap_drop"] == ["ALL"]


def test_what_is_installed_is_not_left_out_of_the_image():
    lines = (PROJECT / ".dockerignore").read_text().splitlines()
    kept = {line.removeprefix("!") for line in lines if line.startswith("!")}
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert {"bionemo_core", "plugins", "pyproject.toml", project["readme"], *project["license-files"]} <= kept
    assert all((PROJECT / name).exists() for name in kept)


def test_the_server_of_the_compose_file_is_one_that_the_command_knows(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path))
    assert cli.main([*SERVER["command"], "--cfg", "job"]) == 0
    assert "host: 0.0.0.0" in capsys.readouterr().out


def test_ports_paths_and_secrets_are_the_same_in_all_files():
    scrape = yaml.safe_load((PROJECT / "deploy/prometheus.yml").read_text())["scrape_configs"][0]
    port = Serve().port
    assert f"EXPOSE {port}" in RECIPE
    assert SERVER["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert f"127.0.0.1:{port}/ready" in SERVER["healthcheck"]["test"][-1]
    assert scrape["static_configs"][0]["targets"] == [f"serve:{port}"]
    (secret,) = COMPOSE["services"]["prometheus"]["secrets"]
    assert scrape["authorization"]["credentials_file"] == f"/run/secrets/{secret}"
    token = COMPOSE["secrets"][secret]["environment"]
    assert token in SERVER["environment"]
    from bionemo_core.tasks.serving.serve import TOKEN

    assert token == TOKEN
