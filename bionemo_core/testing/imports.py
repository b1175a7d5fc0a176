"""Checks that a plugin is found, declares its core, is light to import, and has names of its own."""

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
"""Packages that must not be imported to list a plugin's components, because every command would wait for them."""

SECONDS = 1.0
_IMPORT_TIMEOUT_S = 120

# Runs in a separate process. It measures CPU time, so that a busy machine does not fail the check.
_PROBE = """
import importlib.abc, json, sys, time, traceback
began = time.process_time()
import bionemo_core.builtin
from bionemo_core.plugins.discovery import find_plugins
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
found = [p for p in find_plugins() if (p.entry_point.name, p.distribution) == (name, distribution)]
record = load_plugin(found[0])
seconds = time.process_time() - began
loaded = {m: culprits.get(m, "") for m in heavy if m in sys.modules and m not in before}
with open(report_path, "w") as file:
    json.dump({"heavy": loaded, "seconds": seconds, "status": record.status, "reason": record.reason}, file)
"""


def check_found(subject: Subject) -> None:
    """Check that a plugin is installed, loads, and is compatible with this core.

    Raises:
        ConformanceError: it does not; the message says why.
    """
    if not subject.components():
        fail(f"{subject.distribution} offers no component.")
    subject.check_parameter_names()


def check_core_requirement(subject: Subject) -> None:
    """Check that a plugin declares which cores it works with, so that a later core can refuse it clearly.

    Raises:
        ConformanceError: it requires no core, or has no upper bound.
    """
    declared = [
        requirement
        for requirement in map(Requirement, subject.found.requires)
        if canonicalize_name(requirement.name) == CORE_DISTRIBUTION
    ]
    advice = f'Put "{CORE_DISTRIBUTION}>=0.2,<0.3" into the dependencies of its pyproject.toml and reinstall it.'
    if not declared:
        fail(f"{subject.distribution} does not declare that it needs {CORE_DISTRIBUTION}. {advice}")
    for requirement in declared:
        if not any(one.operator in ("<", "<=", "==", "===", "~=") for one in requirement.specifier):
            fail(
                f"{subject.distribution} needs {str(requirement)!r}, which admits every later core, even one with "
                f"other hooks. {advice}"
            )


def check_light_import(subject: Subject) -> None:
    """Check that a plugin's components can be listed quickly and without heavy packages.

    Raises:
        ConformanceError: they cannot; the message names the package and the line that imports it, or the time.
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
            f"listing the components of {subject.distribution} imports {', '.join(named)}. Every command would wait "
            "for this. Import it in the body of the factory, and keep networks in a module that the factory imports."
        )
    if report["seconds"] > SECONDS:
        fail(
            f"listing the components of {subject.distribution} takes {report['seconds']:.1f} s of CPU, expected less "
            f"than {SECONDS} s. Find the cause with `python -X importtime -c 'import {point.module}'`, and move that "
            "work into the factories."
        )


def check_names(subject: Subject) -> None:
    """Check that no other installed plugin, nor the core, uses the names of a plugin's components.

    Raises:
        ConformanceError: a name is taken; the message names both sides.
    """
    everything = Registry.load(builtin, environ={})
    record = next(one for one in everything.records if one.distribution == subject.distribution)
    if record.status is Status.CONFLICTING:
        fail(
            f"{record.reason} Users would have to type the long form. Choose another name, for example with the "
            "family's name in front."
        )
