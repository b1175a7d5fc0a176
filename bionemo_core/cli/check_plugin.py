"""`bionemo-run check-plugin NAME`: runs the conformance kit on an installed plugin and prints a table of its checks."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bionemo_core.builtin import load_registry
from bionemo_core.cli.arguments import ArgumentParser
from bionemo_core.cli.help import USAGE
from bionemo_core.cli.plugin_name import PREFIX
from bionemo_core.errors import ArtefactError, ConfigError
from bionemo_core.machine import has_package
from bionemo_core.plugins import PluginRecord
from bionemo_core.plugins.did_you_mean import did_you_mean
from bionemo_core.plugins.records import CORE_DISTRIBUTION, normalize_name

# A pytest project of one class, which is what an author writes too.
_PROJECT = """
from bionemo_core.testing import PluginConformance


class TestPlugin(PluginConformance):
    plugin = {plugin!r}
    models = {models!r}
    parameters = {parameters!r}
"""
_SHIELDED = ("PYTEST_ADDOPTS", "PYTEST_PLUGINS")


def run(arguments: list[str]) -> int:
    """Run the kit, print a line for each check, and return 0.

    Raises:
        ConfigError: pytest or the plugin is not installed, or an argument is invalid.
        ArtefactError: a check failed.
    """
    parser = ArgumentParser("check-plugin", USAGE["check-plugin"])
    parser.add_argument("name")
    parser.add_argument("values", nargs="*")
    parser.add_argument("--models")
    parser.add_argument("--only", default="")
    parser.add_argument("--slow", action="store_true")
    chosen = parser.parse_args(arguments)
    if not has_package("pytest"):
        raise ConfigError("check-plugin: the kit runs on pytest, which is not installed. Run `pip install pytest`.")
    record = _find_plugin(chosen.name)
    models = chosen.models.split(",") if chosen.models else None
    offered = [one.name for one in record.components if one.group == "model"]
    for model in models or ():
        if model not in offered:
            raise ConfigError(
                f"check-plugin: {record.distribution} has no model {model!r}.{did_you_mean(model, offered)} "
                f"It has: {', '.join(offered) or 'none'}."
            )
    project = _PROJECT.format(plugin=record.distribution, models=models, parameters=_parameters(chosen.values, record))
    _run_kit(record, project, chosen.only, chosen.slow)
    return 0


def _find_plugin(name: str) -> PluginRecord:
    """Return the record of an installed plugin, by the name of its distribution, with or without `bionemo-`.

    Raises:
        ConfigError: there is none.
    """
    records = {one.distribution: one for one in load_registry().records[1:]}
    wanted = normalize_name(name)
    found = records.get(wanted) or records.get(f"{PREFIX}{wanted}")
    if wanted in (CORE_DISTRIBUTION, "run"):
        raise ConfigError(
            f"check-plugin: {CORE_DISTRIBUTION} is no plugin. Name one of {', '.join(records) or 'yours'}."
        )
    if found is None:
        words = [one.removeprefix(PREFIX) for one in records]  # the same beginning makes no two names similar
        raise ConfigError(
            f"check-plugin: no plugin {name!r} is installed.{did_you_mean(wanted.removeprefix(PREFIX), words)} "
            f"Installed: {', '.join(records) or 'none'}. Install yours with pip install -e FOLDER."
        )
    return found


def _parameters(values: Sequence[str], record: PluginRecord) -> dict[str, dict[str, Any]]:
    """Return the values of GROUP.KEY=VALUE for each component of the plugin that has the key, by GROUP/NAME."""
    from omegaconf import OmegaConf

    keys = {(one.group, key.name) for one in record.components for key in one.keys}
    found: dict[str, dict[str, Any]] = {}
    for typed in values:
        dotted, separator, _ = typed.partition("=")
        group, _, name = dotted.partition(".")
        if not separator or (group, name) not in keys:
            known = [f"{group}.{name}" for group, name in keys]
            raise ConfigError(
                f"check-plugin: {dotted!r} is no key of a component of {record.distribution}."
                f"{did_you_mean(dotted, known)} Usage: {USAGE['check-plugin']}"
            )
        value = OmegaConf.to_container(OmegaConf.from_dotlist([typed]))[group][name]  # type: ignore[call-overload,index]
        for one in record.components:
            if one.group == group and any(key.name == name for key in one.keys):
                found.setdefault(f"{group}/{one.name}", {})[name] = value
    return found


def _run_kit(record: PluginRecord, project: str, only: str, slow: bool) -> None:
    import pytest

    from bionemo_core.cli.check_report import KitReport
    from bionemo_core.testing.plugin import SLOW_VARIABLE

    report = KitReport(sys.stdout.write)
    sys.stdout.write(f"{record.distribution} {record.version}: the checks of the conformance kit\n")
    with TemporaryDirectory(prefix="check-plugin-") as folder, _environment({SLOW_VARIABLE: "1"} if slow else {}):
        test = Path(folder) / "test_plugin.py"
        test.write_text(project)
        options = ["-c", os.devnull, "--rootdir", folder, "--basetemp", f"{folder}/work", "--capture=sys"]
        options += ["-p", "no:terminal", "-p", "no:cacheprovider", "-W", "ignore", *(["-k", only] if only else [])]
        status = pytest.main([*options, str(test)], plugins=[report])
    report.raise_if_stopped()
    if not report.num_checks:
        raise ConfigError(f"check-plugin: no check ran (pytest status {int(status)}). --only {only!r} may match none.")
    sys.stdout.write(report.summary())
    if report.failed:
        raise ArtefactError(
            f"check-plugin: {len(report.failed)} of {report.num_checks} checks of {record.distribution} failed. "
            f"{report.advice()}"
        )


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set variables, and hide the user's settings of pytest, while the block runs."""
    before = dict(os.environ)
    for name in _SHIELDED:
        os.environ.pop(name, None)
    os.environ.update({**variables, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
