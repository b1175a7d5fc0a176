"""The save protocol: a checkpoint that counts as saved is complete, hashed and on the disk.

1. Write the files to a temporary folder beside the checkpoints and flush each.
2. Write and flush the manifest, then flush the folder.
3. Rename the folder and flush its parent.
4. Read everything back.

Older checkpoints are not touched; `retention` prunes them afterwards. The ranks agree after each stage, so that all
return the folder or all raise.
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
from bionemo_core.checkpoint.faults import check_fault_point
from bionemo_core.checkpoint.load import CheckpointReader
from bionemo_core.checkpoint.rank_agreement import Disagreement, Peers, SingleProcess
from bionemo_core.checkpoint.shards import DTYPE_NAMES, check_storable, write_tensors
from bionemo_core.checkpoint.state import encode
from bionemo_core.errors import BioNeMoError, CheckpointError, ResourceError, StorageError
from bionemo_core.io import atomic
from bionemo_core.io.exhaustion import ADVICE_OF_ERRNO, kind_of_failure
from bionemo_core.io.hashing import FileFacts
from bionemo_core.machine import disk_free_bytes

_SINGLE_PROCESS = SingleProcess()
_EMPTY: Mapping[str, Any] = MappingProxyType({})


def save(
    root: Path,
    step: int,
    parts: Iterable[TensorPart],
    state: Mapping[str, Any],
    *,
    peers: Peers = _SINGLE_PROCESS,
    facts: Mapping[str, Any] = _EMPTY,
    consumed_samples: int = 0,
) -> Path:
    """Save `root/step-N` and return its path once it is on the disk and has been read back.

    Every rank calls it with the parts that it owns; `state` and `facts` are taken from rank 0.
    `state` holds nested plain values and tensors, `facts` plain values that a reader may compare.

    Raises:
        StorageError: the file system failed; nothing is left behind, and older checkpoints are intact.
        ResourceError: the machine has run out of something; the same holds.
        CheckpointError: the parts do not make up whole tensors, or `state` holds a value of an unsupported type.
        NetworkError: a rank was lost.
    """
    saving = _Saving(Path(root), step, peers)
    document = manifest.Manifest(step, consumed_samples, {}, {}, manifest.versions())
    try:
        saving.run_stage(lambda: saving.prepare(parts, state, facts))
        saving.run_stage(saving.write_shard)
        saving.run_stage(lambda: saving.publish(document))
        saving.run_stage(saving.verify)
    except Exception as failure:
        saving.undo(failure)
        raise
    return saving.finish()


class _Saving:
    """One save as one rank performs it."""

    def __init__(self, root: Path, step: int, peers: Peers) -> None:
        self.root, self.step, self.peers = root, step, peers
        self.folder = root / folder_names.step_name(step)
        self.temporary = root / (folder_names.TEMPORARY + folder_names.step_name(step))
        self.replaced = root / (folder_names.REPLACED + folder_names.step_name(step))
        self.shard = folder_names.shard_name(peers.rank, peers.size)
        self.parts: list[TensorPart] = []
        self.needed_bytes = 0
        self.is_rank_zero = peers.rank == 0
        self.published = False
        self.tensors: dict[str, torch.Tensor] = {}
        self.state: Any = None
        self.facts: Any = None

    def run_stage(self, stage: Callable[[], None]) -> None:
        """Run `stage` and return once every rank has; raise on all ranks if it failed on one."""
        try:
            stage()
        except Exception as failure:  # The other ranks must learn of any failure; otherwise they wait for ever.
            classified = self._classify(failure)
            code = getattr(classified, "code", "bug")
            with contextlib.suppress(Disagreement):
                self.peers.agree(False, f"{code}: rank {self.peers.rank}: {classified}")
            if classified is failure:
                raise
            raise classified from failure
        try:
            self.peers.agree(True)
        except Disagreement as other:
            kinds = {kind.code: kind for kind in (StorageError, ResourceError)}
            kind = kinds.get(str(other).partition(":")[0], CheckpointError)
            raise kind(f"checkpoint: step {self.step} was not saved, because of {other}") from None

    def prepare(self, parts: Iterable[TensorPart], state: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Check that everything can be saved, remove what killed saves left, make the temporary folder."""
        check_fault_point("before_folder")
        self.parts = list(parts)
        self.needed_bytes = sum(part.tensor.numel() * part.tensor.element_size() for part in self.parts)
        _check_parts(self.parts)
        if not self.is_rank_zero:
            return
        if type(self.step) is not int or self.step < 0:
            raise CheckpointError(f"checkpoint: step: got {self.step!r}, expected a whole number from 0.")
        if not isinstance(state, Mapping) or not isinstance(facts, Mapping):
            raise TypeError("state and facts are mappings")
        self.state = encode(state, self.tensors)
        self.facts = encode(facts, None, "facts")
        self.root.mkdir(parents=True, exist_ok=True)
        clear_leftovers(self.root)
        self.temporary.mkdir()
        check_fault_point("folder_made")

    def write_shard(self) -> None:
        """Write this rank's tensors, and the list of them that rank 0 reads."""
        tensors = {_key(part): part.tensor for part in self.parts}
        written = write_tensors(self.temporary / self.shard, tensors, lambda: check_fault_point("shard_half_written"))
        check_fault_point("shard_written")
        entries = [
            {
                "name": part.name,
                "dtype": DTYPE_NAMES[part.tensor.dtype],
                "global_shape": list(part.global_shape),
                "key": _key(part),
                "offset": list(part.offset),
                "shape": list(part.tensor.shape),
            }
            for part in self.parts
        ]
        text = manifest.to_json({"file": self.shard, "facts": list(written), "entries": entries})
        atomic.write_chunks(self.temporary / self._list_name(self.peers.rank), [text])
        check_fault_point("piece_list_written")

    def publish(self, document: manifest.Manifest) -> None:
        """Write index, state and manifest on rank 0, then make the folder a checkpoint by renaming it."""
        if not self.is_rank_zero:
            return
        index, listed = self._merge()
        listed[folder_names.INDEX] = atomic.write_chunks(self.temporary / folder_names.INDEX, [manifest.to_json(index)])
        check_fault_point("index_written")
        state = manifest.to_json({"step": self.step, "state": self.state})
        listed[folder_names.STATE_TENSORS] = write_tensors(
            self.temporary / folder_names.STATE_TENSORS, self.tensors, lambda: None
        )
        listed[folder_names.STATE] = atomic.write_chunks(self.temporary / folder_names.STATE, [state])
        check_fault_point("state_written")
        complete = manifest.Manifest(
            document.step, document.consumed_samples, dict(sorted(listed.items())), self.facts, document.versions
        )
        atomic.write_chunks(self.temporary / folder_names.MANIFEST, [manifest.pack(complete)])
        check_fault_point("manifest_written")
        atomic.sync(self.temporary)
        check_fault_point("folder_synced")
        if self.folder.exists():
            atomic.move(self.folder, self.replaced)
        atomic.move(self.temporary, self.folder)
        self.published = True
        check_fault_point("renamed")
        atomic.sync(self.root)
        check_fault_point("parent_synced")

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
                known = tensors.setdefault(entry["name"], {**tensor, "pieces": []})
                if {**tensor, "pieces": known["pieces"]} != known:
                    raise CheckpointError(
                        f"checkpoint: tensor '{entry['name']}': rank {rank} has {tensor['dtype']} of global shape "
                        f"{tensor['shape']}, but a lower rank has {known['dtype']} of global shape {known['shape']}."
                    )
                known["pieces"].append(
                    {"file": part["file"], "key": entry["key"], "offset": entry["offset"], "shape": entry["shape"]}
                )
        for name, tensor in tensors.items():
            blocks = [Block(tuple(p["offset"]), tuple(p["shape"])) for p in tensor["pieces"]]
            check_tiling(name, tuple(tensor["shape"]), blocks)
        return {"step": self.step, "tensors": tensors}, listed

    def verify(self) -> None:
        """Read back the files that belong to all ranks and the shard of this one; check that they fit together."""
        try:
            with CheckpointReader(self.folder) as reader:  # opening it checks the hashes of all files but the shards
                reader.check_hashes([self.shard])
        except CheckpointError as damage:
            raise StorageError(
                f"checkpoint: step {self.step} was written but does not read back; the disk or file system is "
                f"failing. {damage}"
            ) from damage
        check_fault_point("verified")

    def undo(self, failure: Exception) -> None:
        """Remove what a failed save has left, as far as the file system allows."""
        if not self.is_rank_zero:
            return
        with contextlib.suppress(OSError):
            # If only another rank was lost, the published folder is complete, and a reader verifies it anyway.
            if self.published and isinstance(failure, (StorageError, ResourceError, CheckpointError)):
                atomic.move(self.folder, self.temporary)
            if self.replaced.exists() and not self.folder.exists():
                atomic.move(self.replaced, self.folder)
        shutil.rmtree(self.temporary, ignore_errors=True)

    def finish(self) -> Path:
        """Delete the checkpoint that this one replaced, if there was one; return the folder."""
        if self.is_rank_zero:
            shutil.rmtree(self.replaced, ignore_errors=True)
        return self.folder

    def _list_name(self, rank: int) -> str:
        return folder_names.piece_list_name(rank, self.peers.size)

    def _classify(self, failure: Exception) -> Exception:
        if isinstance(failure, BioNeMoError) or not isinstance(failure, OSError):
            return failure
        advice = ADVICE_OF_ERRNO.get(
            failure.errno or 0, "Free space or correct the permissions of that folder, then resume with resume=last."
        )
        return kind_of_failure(failure, StorageError)(
            f"checkpoint: step {self.step} was not saved: {failure.strerror or failure} "
            f"({errno.errorcode.get(failure.errno or 0, 'no code')}) at {failure.filename or self.temporary}. "
            f"Needed {self.needed_bytes:,} bytes, free {_free_bytes(self.root)}. Older checkpoints are untouched. "
            f"{advice}"
        )


def clear_leftovers(root: Path) -> None:
    """Remove what killed saves and prunings left in `root`, and move a checkpoint that one had moved aside back.

    Raises:
        OSError: `root` cannot be listed, or a checkpoint cannot be moved back.
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
    """Return the free bytes on the file system of `path`, as text; 'unknown' if the system does not report them."""
    try:
        return f"{disk_free_bytes(path):,}"
    except OSError:
        return "unknown"


def _key(part: TensorPart) -> str:
    return f"{part.name}@{','.join(map(str, part.offset))}"


def _check_parts(parts: list[TensorPart]) -> None:
    seen: set[str] = set()
    for part in parts:
        where = f"tensor '{part.name}'"
        check_storable(part.tensor, where)
        if not part.name or _key(part) in seen:
            problem = "is given twice" if part.name else "has no name"
            raise CheckpointError(f"checkpoint: {where}: its part at {list(part.offset)} {problem}.")
        seen.add(_key(part))
        if len(part.offset) != part.tensor.dim() or len(part.global_shape) != part.tensor.dim():
            raise CheckpointError(
                f"checkpoint: {where}: offset {list(part.offset)} and global shape {list(part.global_shape)} "
                f"must have the {part.tensor.dim()} dims of its tensor."
            )
