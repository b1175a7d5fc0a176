"""Checks that a plugin is found, is safe to update beside, is light to import, and takes nobody's name."""

import json
import os
import subprocess
import sys

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bionemo_core import builtin
from bionemo_core.plugins import CORE_DISTRIBUTION, Registry, Status
from bionemo_core.testing.subject import Subject, fail

HEAVY = (
    "torch",
    "pytorch_lightning",
    "lightning",
    "megatron",
    "transformers",
    "rdkit",
    "Bio",
    "wandb",
    "pandas",
    "scipy",
    "sklearn",
    "jax",
    "tensorflow",
)
"""What must not be imported to list a plugin's components: each costs every command of every user."""

SECONDS = 1.0
_IMPORT_TIMEOUT_S = 120

# Runs in a process of its own. CPU time, because a busy machine is not the plugin's fault.
_PROBE = """
import importlib.abc, json, sys, time, traceback
began = time.process_time()
import bionemo_core.builtin
from bionemo_core.plugins.discovery import found_plugins
from bionemo_core.plugins.loading import load_plugin
heavy, name, distribution, report_path = json.loads(sys.argv[1])
before = set(sys.modules)
culprits = {}

class Watch(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname in heavy and fullname not in culprits:
            frames = [f for f in traceback.extract_stack()[:-1] if "importlib" not in f.filename]
            culprits[fullname] = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""

sys.meta_path.insert(0, Watch())
found = [p for p in found_plugins() if (p.entry_point.name, p.distribution) == (name, distribution)]
record = load_plugin(found[0])
seconds = time.process_time() - began
loaded = {m: culprits.get(m, "") for m in heavy if m in sys.modules and m not in before}
with open(report_path, "w") as file:
    json.dump({"heavy": loaded, "seconds": seconds, "status": record.status, "reason": record.reason}, file)
"""


def check_found(subject: Subject) -> None:
    """Accept a plugin that is installed, loads, and is compatible with this core.

    Raises:
        ConformanceError: says what became of it instead.
    """
    if not subject.components():
        fail(f"{subject.distribution} offers nothing.")


def check_core_requirement(subject: Subject) -> None:
    """Accept a plugin that declares which cores it works with, so that a later core refuses it in words.

    Raises:
        ConformanceError: it requires no core, or has no upper bound.
    """
    declared = [
        requirement
        for requirement in map(Requirement, subject.found.requires)
        if canonicalize_name(requirement.name) == CORE_DISTRIBUTION
    ]
    advice = f'Put "{CORE_DISTRIBUTION}>=0.1,<0.2" into the dependencies of its pyproject.toml and re-install it.'
    if not declared:
        fail(f"{subject.distribution} does not declare that it needs {CORE_DISTRIBUTION}. {advice}")
    for requirement in declared:
        if not any(one.operator in ("<", "<=", "==", "===", "~=") for one in requirement.specifier):
            fail(
                f"{subject.distribution} needs {str(requirement)!r}, which admits every later core, also one with "
                f"other hooks. {advice}"
            )


def check_light_import(subject: Subject) -> None:
    """Accept a plugin whose components can be listed without the packages that only a model needs.

    Raises:
        ConformanceError: names the package and the line that imports it, or the time.
    """
    subject.folder.mkdir(parents=True, exist_ok=True)
    report_path = subject.folder / "import.json"
    point = subject.found.entry_point
    question = json.dumps([HEAVY, point.name, subject.distribution, str(report_path)])
    done = subprocess.run(  # noqa: S603 - this interpreter, with a text of ours
        [sys.executable, "-c", _PROBE, question],
        env={**os.environ, **subject.environment},
        capture_output=True,
        text=True,
        timeout=_IMPORT_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        fail(f"importing {point.value!r} ended the process with status {done.returncode}:\n{done.stderr[-2000:]}")
    report = json.loads(report_path.read_text())
    if report["heavy"]:
        named = [f"{name} (imported at {where})" if where else name for name, where in report["heavy"].items()]
        fail(
            f"listing the components of {subject.distribution} imports {', '.join(named)}. Every command would pay for "
            "it: import it in the body of the factory, and keep networks in a module that the factory imports."
        )
    if report["seconds"] > SECONDS:
        fail(
            f"listing the components of {subject.distribution} takes {report['seconds']:.1f} s of CPU, expected less "
            f"than {SECONDS} s. Find out why with `python -X importtime -c 'import {point.module}'`, and do that work "
            "in the factories."
        )


def check_names(subject: Subject) -> None:
    """Accept a plugin whose names nobody else among the installed plugins, the core included, uses.

    Raises:
        ConformanceError: names both sides.
    """
    everybody = Registry.load(builtin, environ={})
    record = next(one for one in everybody.records if one.distribution == subject.distribution)
    if record.status is Status.CONFLICTING:
        fail(
            f"{record.reason} Users could type it only in the long form: choose another name, for instance with the "
            "family's name in front."
        )
