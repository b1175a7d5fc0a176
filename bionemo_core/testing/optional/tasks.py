"""Checks of a task: what it says about itself is true, and its function can be called."""

import dataclasses
import inspect

from bionemo_core.config.schema import CORE_GROUPS
from bionemo_core.config.task_spec import TaskSpec
from bionemo_core.plugins import RegisteredComponent
from bionemo_core.plugins.hookspecs import GROUPS
from bionemo_core.testing.subject import Subject, explain_failures, fail

TOP_KEYS = ("name", "resume", "restore_from_path")


def check_task(subject: Subject, registered: RegisteredComponent) -> None:
    """Check that a task can be started, and names only keys that exist.

    Raises:
        ConformanceError: it cannot, or names another.
    """
    where, task = f"task {registered.name!r}", registered.component
    if not isinstance(task, TaskSpec):
        fail(f"{where}: it is a {type(task).__name__}, expected bionemo_core.TaskSpec.of(settings, entry, summary).")
    with explain_failures(f"{where}: importing {task.entry}"):
        run = task.load()
    try:
        inspect.signature(run).bind("spec", "registry", composed_yaml="")
    except TypeError as error:
        fail(f"{where}: {task.entry} cannot be called as run(spec, registry, composed_yaml=...): {error}.")
    known = {*GROUPS, *CORE_GROUPS, *TOP_KEYS}
    known |= {f"{group}.{one.name}" for group, schema in CORE_GROUPS.items() for one in dataclasses.fields(schema)}
    own = {key.name for key in registered.keys}
    for name in (*task.unused, *(name for names in task.unused_with.values() for name in names)):
        if name not in known:
            fail(f"{where}: `unused` names {name!r}, which is neither a group nor a key of the core.")
    for way in task.unused_with:
        if way.partition("=")[0] not in own:
            fail(f"{where}: `unused_with` names {way!r}, whose key the task does not have.")
    if not task.summary:
        fail(f"{where}: it has no summary, which `bionemo-run help` shows.")
