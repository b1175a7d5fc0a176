"""The save protocol: what is called saved is complete, checksummed and on the disk.

Write to a temporary folder beside, flush each file, write the manifest, flush it and the folder,
rename, flush the parent, read everything back. Older checkpoints are not touched; pruning comes
later and elsewhere. Ranks agree after each stage, so that all return the folder or all raise.
"""

import contextlib
import errno
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from bionemo_core.checkpoint import folder_names, manifest
from bionemo_core.checkpoint.blocks import Block, TensorPart, check_tiling
from bionemo_core.checkpoint.faults import reached
from bionemo_core.checkpoint.load import CheckpointReader
from bionemo_core.checkpoint.rank_agreement import Alone, Disagreement, Peers
from bionemo_core.checkpoint.shards import DTYPE_NAMES, check_storable, write_tensors
from bionemo_core.checkpoint.state import encode
from bionemo_core.errors import BioNeMoError, CheckpointError, StorageError
from bionemo_core.io import atomic
from bionemo_core.io.hashing import FileFacts
from bionemo_core.machine import disk_free_bytes

_ALONE = Alone()
_NOTHING: Mapping[str, Any] = MappingProxyType({})


def save(
    root: Path,
    step: int,
    pieces: Iterable[TensorPart],
    state: Mapping[str, Any],
    *,
    peers: Peers = _ALONE,
    facts: Mapping[str, Any] = _NOTHING,
    consumed_samples: int = 0,
) -> Path:
    """Saves `root/step-N` and returns its path once it is on the disk and has been read back.

    Every rank calls it with the pieces that it owns; `state` and `facts` are taken from rank 0.
    `state` holds nested plain values and tensors, `facts` plain values that a reader may compare.

    Raises:
        StorageError: the file system refused; nothing is left behind, older checkpoints are intact.
        CheckpointError: the pieces do not make up whole tensors, or `state` holds something foreign.
        NetworkError: a rank is gone.
    """
    saving = _Saving(Path(root), step, peers)
    document = manifest.Manifest(step, consumed_samples, {}, {}, manifest.versions())
    try:
        saving.together(lambda: saving.prepare(pieces, state, facts))
        saving.together(saving.write_shard)
        saving.together(lambda: saving.publish(document))
        saving.together(saving.verify)
    except Exception as failure:
        saving.withdraw(failure)
        raise
    return saving.finish()


class _Saving:
    """One save, as one rank goes through it."""

    def __init__(self, root: Path, step: int, peers: Peers) -> None:
        self.root, self.step, self.peers = root, step, peers
        self.folder = root / folder_names.step_name(step)
        self.temporary = root / (folder_names.TEMPORARY + folder_names.step_name(step))
        self.replaced = root / (folder_names.REPLACED + folder_names.step_name(step))
        self.shard = folder_names.shard_name(peers.rank, peers.size)
        self.pieces: list[TensorPart] = []
        self.needed = 0
        self.leads = peers.rank == 0
        self.published = False
        self.tensors: dict[str, torch.Tensor] = {}
        self.state: Any = None
        self.facts: Any = None

    def together(self, stage: Callable[[], None]) -> None:
        """Goes through `stage` and returns once every rank did; raises on all if one could not."""
        try:
            stage()
        except Exception as failure:  # Whatever it is, the other ranks must hear of it or wait for ever.
            classified = self._classified(failure)
            code = getattr(classified, "code", "bug")
            with contextlib.suppress(Disagreement):
                self.peers.agree(False, f"{code}: rank {self.peers.rank}: {classified}")
            if classified is failure:
                raise
            raise classified from failure
        try:
            self.peers.agree(True)
        except Disagreement as other:
            kind = StorageError if str(other).startswith(StorageError.code) else CheckpointError
            raise kind(f"checkpoint: step {self.step} was not saved, because of {other}") from None

    def prepare(self, pieces: Iterable[TensorPart], state: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Refuses what cannot be saved, clears what killed saves left, makes the temporary folder."""
        reached("before_folder")
        self.pieces = list(pieces)
        self.needed = sum(piece.tensor.numel() * piece.tensor.element_size() for piece in self.pieces)
        _check(self.pieces)
        if not self.leads:
            return
        if type(self.step) is not int or self.step < 0:
            raise CheckpointError(f"checkpoint: a step is a whole number from 0, got {self.step!r}.")
        if not isinstance(state, Mapping) or not isinstance(facts, Mapping):
            raise TypeError("state and facts are mappings")
        self.state = encode(state, self.tensors)
        self.facts = encode(facts, None, "facts")
        self.root.mkdir(parents=True, exist_ok=True)
        clear_leftovers(self.root)
        self.temporary.mkdir()
        reached("folder_made")

    def write_shard(self) -> None:
        """Writes this rank's tensors, and for rank 0 the list of what they are."""
        tensors = {_key(piece): piece.tensor for piece in self.pieces}
        written = write_tensors(self.temporary / self.shard, tensors, lambda: reached("shard_half_written"))
        reached("shard_written")
        entries = [
            {
                "name": piece.name,
                "dtype": DTYPE_NAMES[piece.tensor.dtype],
                "global_shape": list(piece.global_shape),
                "key": _key(piece),
                "offset": list(piece.offset),
                "shape": list(piece.tensor.shape),
            }
            for piece in self.pieces
        ]
        text = manifest.to_json({"file": self.shard, "facts": list(written), "entries": entries})
        atomic.write_chunks(self.temporary / self._list_name(self.peers.rank), [text])
        reached("piece_list_written")

    def publish(self, document: manifest.Manifest) -> None:
        """Rank 0: index, state and manifest, then the rename that makes it a checkpoint."""
        if not self.leads:
            return
        index, listed = self._merge()
        listed[folder_names.INDEX] = atomic.write_chunks(self.temporary / folder_names.INDEX, [manifest.to_json(index)])
        reached("index_written")
        state = manifest.to_json({"step": self.step, "state": self.state})
        listed[folder_names.STATE_TENSORS] = write_tensors(
            self.temporary / folder_names.STATE_TENSORS, self.tensors, lambda: None
        )
        listed[folder_names.STATE] = atomic.write_chunks(self.temporary / folder_names.STATE, [state])
        reached("state_written")
        complete = manifest.Manifest(
            document.step, document.consumed_samples, dict(sorted(listed.items())), self.facts, document.versions
        )
        atomic.write_chunks(self.temporary / folder_names.MANIFEST, [manifest.pack(complete)])
        reached("manifest_written")
        atomic.sync(self.temporary)
        reached("folder_synced")
        if self.folder.exists():
            atomic.move(self.folder, self.replaced)
        atomic.move(self.temporary, self.folder)
        self.published = True
        reached("renamed")
        atomic.sync(self.root)
        reached("parent_synced")

    def _merge(self) -> tuple[dict[str, Any], dict[str, FileFacts]]:
        tensors: dict[str, Any] = {}
        listed: dict[str, FileFacts] = {}
        for rank in range(self.peers.size):
            path = self.temporary / self._list_name(rank)
            part = json.loads(path.read_bytes())
            path.unlink()
            listed[part["file"]] = FileFacts(*part["facts"])
            for entry in part["entries"]:
                tensor = {"dtype": entry["dtype"], "shape": entry["global_shape"]}
                merged = tensors.setdefault(entry["name"], {**tensor, "pieces": []})
                if {**tensor, "pieces": merged["pieces"]} != merged:
                    raise CheckpointError(
                        f"checkpoint: tensor '{entry['name']}': rank {rank} has {tensor['dtype']} of global shape "
                        f"{tensor['shape']}, a lower rank {merged['dtype']} of {merged['shape']}."
                    )
                merged["pieces"].append(
                    {"file": part["file"], "key": entry["key"], "offset": entry["offset"], "shape": entry["shape"]}
                )
        for name, tensor in tensors.items():
            blocks = [Block(tuple(p["offset"]), tuple(p["shape"])) for p in tensor["pieces"]]
            check_tiling(name, tuple(tensor["shape"]), blocks)
        return {"step": self.step, "tensors": tensors}, listed

    def verify(self) -> None:
        """Reads back what this rank wrote; rank 0 the rest too, and that all of it fits together."""
        try:
            with CheckpointReader(self.folder) as reader:
                written = list(reader.manifest.files)
                shards = [name for name in written if name.startswith("shard-")]
                mine = [name for name in written if name == self.shard or (self.leads and name not in shards)]
                reader.check_hashes(mine)
        except CheckpointError as damage:
            raise StorageError(
                f"checkpoint: step {self.step} was written but does not read back; the disk or file system is "
                f"failing. {damage}"
            ) from damage
        reached("verified")

    def withdraw(self, failure: Exception) -> None:
        """Removes, as far as the file system lets it, what a failed save has left."""
        if not self.leads:
            return
        with contextlib.suppress(OSError):
            # When only a peer was lost, what stands there is complete, and a reader checks it anyway.
            if self.published and isinstance(failure, (StorageError, CheckpointError)):
                atomic.move(self.folder, self.temporary)
            if self.replaced.exists() and not self.folder.exists():
                atomic.move(self.replaced, self.folder)
        shutil.rmtree(self.temporary, ignore_errors=True)

    def finish(self) -> Path:
        """Forgets the checkpoint that this one replaced, if there was one; the folder."""
        if self.leads:
            shutil.rmtree(self.replaced, ignore_errors=True)
        return self.folder

    def _list_name(self, rank: int) -> str:
        return folder_names.piece_list_name(rank, self.peers.size)

    def _classified(self, failure: Exception) -> Exception:
        if isinstance(failure, BioNeMoError) or not isinstance(failure, OSError):
            return failure
        return StorageError(
            f"checkpoint: step {self.step} was not saved: {failure.strerror or failure} "
            f"({errno.errorcode.get(failure.errno or 0, 'no code')}) at {failure.filename or self.temporary}. "
            f"Needed {self.needed:,} bytes, free {_free_bytes(self.root)}. Older checkpoints are untouched. "
            "Free space or mend the permissions of that folder, then resume."
        )


def clear_leftovers(root: Path) -> None:
    """Removes what killed saves and prunings left in `root`, and puts back what one had moved aside.

    Raises:
        OSError: `root` cannot be listed, or a folder that is needed again cannot be moved back.
    """
    for entry in list(root.iterdir()):
        if entry.name.startswith(folder_names.REPLACED):
            original = root / entry.name.removeprefix(folder_names.REPLACED)
            if not original.exists():
                atomic.move(entry, original)
                continue
        if entry.name.startswith((folder_names.TEMPORARY, folder_names.TRASH, folder_names.REPLACED)):
            shutil.rmtree(entry, ignore_errors=True)


def _free_bytes(path: Path) -> str:
    """The bytes free where `path` is or would be, as text; 'unknown' where the system does not say."""
    try:
        return f"{disk_free_bytes(path):,}"
    except OSError:
        return "unknown"


def _key(piece: TensorPart) -> str:
    return f"{piece.name}@{','.join(map(str, piece.offset))}"


def _check(pieces: list[TensorPart]) -> None:
    seen: set[str] = set()
    for piece in pieces:
        where = f"tensor '{piece.name}'"
        check_storable(piece.tensor, where)
        if not piece.name or _key(piece) in seen:
            raise CheckpointError(f"checkpoint: {where}: its piece at {list(piece.offset)} is given twice.")
        seen.add(_key(piece))
        if len(piece.offset) != piece.tensor.dim() or len(piece.global_shape) != piece.tensor.dim():
            raise CheckpointError(
                f"checkpoint: {where}: offset {list(piece.offset)} and global shape {list(piece.global_shape)} "
                f"must have the {piece.tensor.dim()} dims of its tensor."
            )
