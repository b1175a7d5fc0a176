"""Ways in which the files of a checkpoint come to harm."""

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from bionemo_core.checkpoint import manifest


def _some_file(folder: Path, draw: random.Random) -> Path:
    return draw.choice(sorted(path for path in folder.iterdir() if path.stat().st_size))


def flip(folder: Path, draw: random.Random) -> None:
    """One bit of one file."""
    path = _some_file(folder, draw)
    raw = bytearray(path.read_bytes())
    raw[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
    path.write_bytes(raw)


def truncate(folder: Path, draw: random.Random) -> None:
    """The end of one file is gone."""
    path = _some_file(folder, draw)
    path.write_bytes(path.read_bytes()[: draw.randrange(path.stat().st_size)])


def append(folder: Path, draw: random.Random) -> None:
    """One file has bytes too many."""
    path = _some_file(folder, draw)
    path.write_bytes(path.read_bytes() + draw.randbytes(draw.randint(1, 100)))


def zero(folder: Path, draw: random.Random) -> None:
    """A run of bytes is zero, as after a lost write."""
    path = _some_file(folder, draw)
    raw = bytearray(path.read_bytes())
    start = draw.randrange(len(raw))
    stop = min(len(raw), start + draw.randint(1, 512))
    raw[start:stop] = bytes(stop - start)
    path.write_bytes(raw)


def swap_files(folder: Path, draw: random.Random) -> None:
    """Two files have each other's names."""
    one, other = draw.sample(sorted(folder.iterdir()), 2)
    aside = folder / "aside"
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def from_another_step(folder: Path, draw: random.Random) -> None:
    """A file is that of another checkpoint."""
    donor = next(path for path in sorted(folder.parent.glob("step-*")) if path != folder)
    name = draw.choice(sorted(path.name for path in folder.iterdir()))
    shutil.copyfile(donor / name, folder / name)


def missing(folder: Path, draw: random.Random) -> None:
    """One file is gone."""
    draw.choice(sorted(folder.iterdir())).unlink()


def extra(folder: Path, draw: random.Random) -> None:
    """Something lies there that does not belong."""
    name = draw.choice([".hidden", "shard-00009-of-00001.safetensors", "model.pt", "index.json.1", "folder/"])
    if name.endswith("/"):
        (folder / name).mkdir()
    else:
        (folder / name).write_bytes(draw.randbytes(draw.randrange(50)))


def edit_manifest(folder: Path, draw: random.Random) -> None:
    """Some letter or figure of the manifest is another one."""
    path = folder / "manifest.json"
    text = list(path.read_text())
    at = draw.choice([i for i, letter in enumerate(text) if letter.isalnum()])
    text[at] = draw.choice([letter for letter in "0123456789abcdef" if letter != text[at]])
    path.write_text("".join(text))


def edit_and_reseal_manifest(folder: Path, draw: random.Random) -> None:
    """The manifest is wrong about the files, yet its own checksum was made to fit."""
    path = folder / "manifest.json"
    body = json.loads(path.read_text())
    seal = next(key for key in body if key.startswith("sha256_of"))
    del body[seal]
    name = draw.choice(sorted(body["files"]))
    change = draw.randrange(7)
    if change == 0:
        body["step"] += draw.choice([-1, 1, 10])
    elif change == 1:
        del body["files"][name]
    elif change == 2:
        body["files"][name]["size"] += draw.choice([-1, 1])
    elif change == 3:
        body["files"][name]["sha256"] = hashlib.sha256(draw.randbytes(4)).hexdigest()
    elif change == 4:
        body["files"]["shard-00001-of-00002.safetensors"] = body["files"][name]
    elif change == 5:
        del body[draw.choice(["files", "facts", "versions", "step", "format"])]
    else:
        body[draw.choice(["files", "step", "format"])] = draw.choice([None, [], "x", -1.5, {"a": 1}])
    path.write_bytes(manifest.to_json({**body, seal: hashlib.sha256(manifest.to_json(body)).hexdigest()}))


def edit_index_and_hashes(folder: Path, draw: random.Random) -> None:
    """The index is wrong about the tensors, yet all checksums were made to fit."""
    path = folder / "index.json"
    index = json.loads(path.read_text())
    entry = index["tensors"][draw.choice(["layer.weight", "layer.bias"])]
    change = draw.randrange(6)
    if change == 0:
        entry["dtype"] = draw.choice(["I32", "F64", "X9", None])
    elif change == 1:
        entry["shape"] = draw.choice([[1], [6, 4, 1], "6", [-6, 4], [10**30]])
    elif change == 2:
        entry["pieces"] = draw.choice([[], None, entry["pieces"] * 2])
    elif change == 3:
        entry["pieces"][0]["offset"] = draw.choice([[1], [1, 0], [-1], None, [True, 0]])
    elif change == 4:
        entry["pieces"][0]["file"] = draw.choice(["../other", "state.json", "", 3])
    else:
        entry["pieces"][0]["key"] = draw.choice(["", "layer.other@0", None, 0])
    raw = manifest.to_json(index)
    path.write_bytes(raw)
    sealed = manifest.read(folder)
    sealed.files["index.json"] = type(sealed.files["index.json"])(len(raw), hashlib.sha256(raw).hexdigest())
    (folder / "manifest.json").write_bytes(manifest.pack(sealed))


def swap_folders(folder: Path, draw: random.Random) -> None:
    """The newest checkpoint and another have each other's names."""
    oldest, *_, newest = sorted(folder.parent.glob("step-*"))
    aside = folder.parent / "aside"
    oldest.rename(aside)
    newest.rename(oldest)
    aside.rename(newest)


MUTATIONS: list[Callable[[Path, random.Random], None]] = [
    flip,
    truncate,
    append,
    zero,
    swap_files,
    from_another_step,
    missing,
    extra,
    edit_manifest,
    edit_and_reseal_manifest,
    edit_index_and_hashes,
    swap_folders,
]
