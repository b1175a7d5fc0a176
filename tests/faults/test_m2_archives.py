"""M2: hostile archives: nothing is written outside, memory stays small, each is refused with status 4."""

import resource
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hostile_archives import CONFIG, bomb, harmless, saved, sized_header, special, tar
from matrix import row

from bionemo_core.builtin import load_registry
from bionemo_core.errors import ArtefactError
from bionemo_core.interop.archive import MAX_MEMBERS
from bionemo_core.models.load import open_model

pytestmark = pytest.mark.faults

ALLOWED_MIB = 400
"""Memory that a refusal may take at most; the promise is 1 GB."""


def with_member(*entries: object) -> Callable[[Path], Path]:
    return lambda path: tar(path, [*harmless(), *entries])


def member(name: str, content: bytes = b"x") -> tuple[str, bytes]:
    return name, content


def cut(path: Path) -> Path:
    whole = tar(path, harmless()).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


def many(path: Path) -> Path:
    entries = [member(f"./{i:032x}_x", b"") for i in range(MAX_MEMBERS + 1)]
    return tar(path, [*harmless(), *entries])


def sparse(path: Path) -> Path:
    """A member that stands for a terabyte of holes."""
    kept = harmless()
    info = tarfile.TarInfo("./model_weights.ckpt")
    info.type = tarfile.GNUTYPE_SPARSE
    return tar(path, [*kept[:2], (info, b"")])


def sticks_out(path: Path) -> Path:
    """The last member says that it is larger than the archive."""
    tar(path, harmless())
    whole = bytearray(path.read_bytes())
    at = whole.index(b"./model_weights.ckpt")
    info = tarfile.TarInfo.frombuf(bytes(whole[at : at + 512]), "utf-8", "strict")
    info.size = 2**33
    whole[at : at + 512] = info.tobuf(tarfile.GNU_FORMAT)
    path.write_bytes(bytes(whole))
    return path


def negative(path: Path) -> Path:
    tar(path, harmless())
    whole = bytearray(path.read_bytes())
    at = whole.index(b"./model_weights.ckpt")
    whole[at + 124 : at + 136] = b"\xff" * 11 + b"\x00"
    path.write_bytes(bytes(whole))
    return path


ARCHIVES: dict[str, Callable[[Path], Path]] = {
    "above its folder": with_member(member("../outside")),
    "above, in the middle": with_member(member("./mp_rank_00/../../outside")),
    "absolute": with_member(member("/tmp/bionemo-outside")),
    "a symbolic link": with_member(special("./link", tarfile.SYMTYPE, "/etc/passwd")),
    "a link in place of the weights": lambda path: tar(
        path, [*harmless()[:2], special("./model_weights.ckpt", tarfile.SYMTYPE, "/etc/passwd")]
    ),
    "a hard link": with_member(special(f"./{'1' * 32}_x", tarfile.LNKTYPE, "./model_config.yaml")),
    "a character device": with_member(special("./device", tarfile.CHRTYPE)),
    "a block device": with_member(special("./device", tarfile.BLKTYPE)),
    "a pipe": with_member(special("./pipe", tarfile.FIFOTYPE)),
    "weights twice": with_member(harmless()[2]),
    "a configuration twice": with_member(harmless()[0]),
    "twice with and without ./": with_member(member("model_config.yaml", b"num_layers: 2\n")),
    "twins but for the case": with_member(member(f"./{'0' * 32}_P.model")),
    "a stranger": with_member(member("./setup.py", b"raise SystemExit")),
    "a stranger's folder": with_member(special("./code", tarfile.DIRTYPE)),
    "a name with NUL and newline": with_member(member(f"./{'1' * 32}_a\nb")),
    "a very long name": with_member(member("./" + "a/" * 5_000 + "x")),
    "no configuration": lambda path: tar(path, harmless()[1:]),
    "no weights": lambda path: tar(path, harmless()[:2]),
    "one rank of two": lambda path: tar(path, [*harmless()[:2], ("./mp_rank_01/model_weights.ckpt", b"x")]),
    "weights both whole and of ranks": with_member(("./mp_rank_00/model_weights.ckpt", saved({}))),
    "a file that the configuration misses": lambda path: tar(
        path, harmless(tokenizer=CONFIG["tokenizer"] | {"vocab_file": f"nemo:{'9' * 32}_x"})
    ),
    "a million members": many,
    "sparse": sparse,
    "sticks out": sticks_out,
    "negative size": negative,
    "cut": cut,
    "a bomb of weights": lambda path: bomb(path, "./model_weights.ckpt", 2**28),
    "a bomb of a configuration": lambda path: bomb(path, "./model_config.yaml", 2**27),
    "a bomb of a name": lambda path: sized_header(path, tarfile.GNUTYPE_LONGNAME, 2**30),
    "a bomb of attributes": lambda path: sized_header(path, tarfile.XHDTYPE, 2**30),
    "gzip with nothing in it": lambda path: (path.write_bytes(b"\x1f\x8b\x08\x00junk"), path)[1],
    "empty": lambda path: (path.write_bytes(b""), path)[1],
    "bzip2": lambda path: (path.write_bytes(b"BZh91AY&SY"), path)[1],
}


def contents(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_m2_archives_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    matrix = row("M2", subset=len(ARCHIVES), full=len(ARCHIVES))
    folder = tmp_path / "in" / "here"
    for name, make in list(ARCHIVES.items())[: matrix.n]:
        folder.mkdir(parents=True)
        with matrix.case(name):
            path = make(folder / "x.nemo")
            before, peak = contents(tmp_path), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            with pytest.raises(ArtefactError) as refusal:
                open_model(str(path), load_registry())
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024
            assert refusal.value.exit_status == 4 and str(path) in str(refusal.value)
            assert contents(tmp_path) == before, "something was written"
            assert grown < ALLOWED_MIB, f"{grown:.0f} MiB"
        shutil.rmtree(tmp_path / "in")
    assert not Path("/tmp/bionemo-outside").exists()
    matrix.check()
