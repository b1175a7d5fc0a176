"""The weights that a new run starts from: those of the model at `restore_from_path`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from torch import nn

from bionemo_core.config.schema import RunSpec
from bionemo_core.errors import ArtefactError, ConfigError
from bionemo_core.interop.load_report import LoadReport
from bionemo_core.interop.stored import StoredModel, Vocabulary
from bionemo_core.models.compatibility import check_plugins, check_vocabulary
from bionemo_core.models.locate import open_stored
from bionemo_core.parallel.groups import ProcessGroups
from bionemo_core.parallel.transfer import Vocabularies, transfer_weights
from bionemo_core.protocols import BuildContext, Tokenizer
from bionemo_core.runs.folder import RunFolder
from bionemo_core.runs.launch import opening_on_all_ranks

if TYPE_CHECKING:
    from bionemo_core.plugins.registry import Registry


def restore_weights(
    spec: RunSpec, network: nn.Module, groups: ProcessGroups, registry: Registry, tokenizer: Tokenizer
) -> LoadReport:
    """Load the network's weights from `restore_from_path`, by the keys `restore.*`; no training state is loaded.

    Raises:
        ArtefactError: the model cannot be opened, has another vocabulary, or does not fit.
        CheckpointError: it has no valid checkpoint, or the checkpoint does not fit.
        ConfigError: extra tokens are asked for where the run has a tokenizer of its own.
    """
    assert spec.restore_from_path
    if spec.restore.extra_tokens:
        raise ConfigError(
            "restore.extra_tokens: is for tasks that take the tokenizer of the stored model. Here give "
            "tokenizer.extra_tokens, and restore.vocabulary=mean."
        )
    with opening_on_all_ranks():
        stored = open_stored(spec.restore_from_path, registry, spec.connector, home=spec.home)
    try:
        if stored.foreign_vocab_size is None:
            stored = replace(stored, notes=(*stored.notes, *check_plugins(stored.spec, registry, stored.source)))
        theirs = _vocabulary_of(stored, spec, registry)
        other = theirs != Vocabulary.of(tokenizer.pieces)
        if other and spec.restore.vocabulary is None:
            raise ArtefactError(
                f"{stored.source}: its tokenizer {stored.spec.tokenizer.name!r} ({theirs.size} pieces) is not "
                f"this run's {spec.tokenizer.name!r} ({tokenizer.vocab_size} pieces), so a row of its embedding "
                "belongs to another piece. To load it anyway, set restore.vocabulary=tile or mean."
            )
        if other:
            note = f"tokenizer {stored.spec.tokenizer.name!r} has other pieces than this run's"
            stored = replace(stored, notes=(*stored.notes, note))
        vocabularies = Vocabularies(tokenizer.vocab_size, theirs.size)
        return transfer_weights(network, groups, stored, spec.restore, vocabularies)
    finally:
        stored.close()


def _vocabulary_of(stored: StoredModel, spec: RunSpec, registry: Registry) -> Vocabulary:
    if stored.foreign_vocab_size is not None:
        return Vocabulary(stored.foreign_vocab_size, "")
    tokenizer = registry.build(stored.spec.tokenizer, context=BuildContext(home=spec.home))
    check_vocabulary(stored, tokenizer)
    return Vocabulary.of(tokenizer.pieces)


def record_restore(folder: RunFolder, report: LoadReport) -> None:
    """Print the load report, and write it to the folder as `restore.json`."""
    print(report.text(), flush=True)
    report.write(folder.path)
