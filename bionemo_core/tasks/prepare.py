"""The task `prepare`: prepare the data of a run; it imports no torch, so it runs on any machine."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from bionemo_core.config.schema import RunSpec
from bionemo_core.data.store.prepare import record_prepared_stores
from bionemo_core.data.store.report import PICTURE, draw_lengths, summary
from bionemo_core.errors import BioNeMoError, ConfigError, Preempted, Stopped
from bionemo_core.io.plots import optional_picture
from bionemo_core.protocols import BuildContext
from bionemo_core.runs.cores import refuse_oversubscription
from bionemo_core.tasks.settings import Prepare

if TYPE_CHECKING:
    from bionemo_core.data.store.record_store import PreparedStore
    from bionemo_core.plugins.registry import Registry

_EXAMPLES = 3


def prepare(spec: RunSpec, registry: Registry, *, composed_yaml: str = "") -> None:
    """Build the stores of the data component, and print what was read, used and rejected.

    Raises:
        BioNeMoError: the task failed.
    """
    settings = Prepare(**spec.task.params)
    refuse_oversubscription(spec, ranks_use_cores=False)
    context = BuildContext(seed=spec.seed, home=spec.home, preparation_workers=settings.num_workers)
    tokenizer = registry.build(spec.tokenizer, context=context)
    with record_prepared_stores() as stores:
        try:
            _prepare(spec, registry, tokenizer, context, stores, picture=settings.picture)
        except Stopped as stop:
            if not stores:
                raise
            raise Preempted(
                f"task=prepare: stopped by {stop.name}; {len(set(stores))} of the stores are complete, in "
                f"{stores[0].folder.parent}. Run the same command again to prepare the others."
            ) from None


def _prepare(
    spec: RunSpec,
    registry: Registry,
    tokenizer: Any,
    context: BuildContext,
    stores: list[PreparedStore],
    *,
    picture: bool,
) -> None:
    """Build the data component, which adds to `stores`, and print what became of each record."""
    try:
        splits = registry.build(spec.data, tokenizer=tokenizer, context=context)
    except BioNeMoError:
        _write_reports(stores, picture=False)  # the counts explain why a split failed
        raise
    if not stores:
        raise ConfigError(f"data={spec.data.name} has nothing to prepare: it reads no records into a store.")
    _write_reports(stores, picture)
    named = (("train", splits.train), ("val", splits.val), ("test", splits.test))
    sizes = ", ".join(f"{len(part):,} {name}" for name, part in named if part is not None)
    sys.stdout.write(f"splits: {sizes}\n")


def _write_reports(stores: list[PreparedStore], picture: bool) -> None:
    for store in dict.fromkeys(stores):
        drawn = picture and _draw(store)
        sys.stdout.write(_report(store, drawn))


def _draw(store: PreparedStore) -> bool:
    path = store.folder / PICTURE
    with optional_picture(path):
        if not path.exists():
            draw_lengths(store.manifest, path, advice="Leave it out with task.picture=false.")
        return True
    return False


def _report(store: PreparedStore, drawn: bool) -> str:
    manifest = store.manifest
    lengths = manifest["lengths"]
    lines = [summary(manifest)]
    for reason, examples in sorted(manifest["examples"].items()):
        lines += [f"  {reason}: {example}" for example in examples[:_EXAMPLES]]
    lines.append(
        f"  lengths in characters: {lengths['shortest']:,} to {lengths['longest']:,}, mean {lengths['mean']:,}, "
        f"{lengths['total']:,} in total{f'; drawn in {PICTURE}' if drawn else ''}"
    )
    lines.append(f"  store {store.folder}")
    return "\n".join(lines) + "\n"
