"""M2: hostile archives: nothing is written outside, memory stays small, each is refused with status 4."""

import resource
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hostile_archives import CONFIG, assert_opens, harmless, sized_header, special, tar, weights
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


def cut_gzip(path: Path) -> Path:
    whole = tar(path, harmless(), packed=True).read_bytes()
    path.write_bytes(whole[: len(whole) - 64])
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


def sized(path: Path, size: int) -> Path:
    """The last member says that it has `size` bytes."""
    tar(path, harmless())
    whole = bytearray(path.read_bytes())
    at = whole.index(b"./model_weights.ckpt")
    info = tarfile.TarInfo.frombuf(bytes(whole[at : at + 512]), "utf-8", "strict")
    info.size = size
    whole[at : at + 512] = info.tobuf(tarfile.GNU_FORMAT)
    path.write_bytes(bytes(whole))
    return path


def negative(path: Path) -> Path:
    """A complete archive, and then a member whose size is negative."""
    tar(path, [*harmless(), member(f"./{'1' * 32}_x")])
    whole = bytearray(path.read_bytes())
    at = whole.index(b"./1111")
    whole[at + 124 : at + 136] = b"\xff" * 11 + b"\x00"
    path.write_bytes(bytes(whole))
    return path


def damaged_header(path: Path) -> Path:
    """A complete archive, and then a member whose header has a wrong checksum, before another one."""
    tar(path, [*harmless(), member(f"./{'1' * 32}_x"), harmless()[2]])
    whole = bytearray(path.read_bytes())
    whole[whole.index(b"./1111") + 4] ^= 1
    path.write_bytes(bytes(whole))
    return path


def inflated(path: Path, name: str) -> Path:
    """A gzip archive whose weights or configuration unpack to 256 MiB of zeros."""
    return tar(path, [(one, bytes(2**28) if one == name else content) for one, content in harmless()], packed=True)


STRANGER, SPECIAL, TWICE = "does not belong in a .nemo archive", "not a regular file", "the archive holds it twice"
# What is done to the harmless archive, and what the refusal must say of it: else it proves nothing.
ARCHIVES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "above its folder": (with_member(member("../outside")), STRANGER),
    "above, in the middle": (with_member(member("./mp_rank_00/../../outside")), STRANGER),
    "absolute": (with_member(member("/tmp/bionemo-outside")), STRANGER),
    "a symbolic link": (with_member(special("./link", tarfile.SYMTYPE, "/etc/passwd")), SPECIAL),
    "a link in place of the weights": (
        lambda path: tar(path, [*harmless()[:2], special("./model_weights.ckpt", tarfile.SYMTYPE, "/etc/passwd")]),
        SPECIAL,
    ),
    "a hard link": (with_member(special(f"./{'1' * 32}_x", tarfile.LNKTYPE, "./model_config.yaml")), SPECIAL),
    "a character device": (with_member(special("./device", tarfile.CHRTYPE)), SPECIAL),
    "a block device": (with_member(special("./device", tarfile.BLKTYPE)), SPECIAL),
    "a pipe": (with_member(special("./pipe", tarfile.FIFOTYPE)), SPECIAL),
    "weights twice": (lambda path: tar(path, [*harmless(), harmless()[2]]), TWICE),
    "a configuration twice": (lambda path: tar(path, [*harmless(), harmless()[0]]), TWICE),
    "twice with and without ./": (
        lambda path: tar(path, [*harmless(), ("model_config.yaml", harmless()[0][1])]),
        TWICE,
    ),
    "twins but for the case": (with_member(member(f"./{'0' * 32}_P.model")), TWICE),
    "a stranger": (with_member(member("./setup.py", b"raise SystemExit")), STRANGER),
    "a stranger's folder": (with_member(special("./code", tarfile.DIRTYPE)), SPECIAL),
    "a name with NUL and newline": (with_member(member(f"./{'1' * 32}_a\nb")), STRANGER),
    "a very long name": (with_member(member("./" + "a/" * 5_000 + "x")), STRANGER),
    "no configuration": (lambda path: tar(path, harmless()[1:]), "has no model_config.yaml"),
    "no weights": (lambda path: tar(path, harmless()[:2]), "missing for the ranks .* all"),
    "one rank of two": (
        lambda path: tar(path, [*harmless()[:2], ("./mp_rank_01/model_weights.ckpt", weights())]),
        r"missing for the ranks .*\(0, 0\)",
    ),
    "weights both whole and of ranks": (
        lambda path: tar(path, [*harmless(), ("./mp_rank_00/model_weights.ckpt", weights())]),
        "two members hold the weights",
    ),
    "a file that the configuration misses": (
        lambda path: tar(path, harmless(tokenizer=CONFIG["tokenizer"] | {"vocab_file": f"nemo:{'9' * 32}_x"})),
        "vocab_file: refers to member '9+_x', which is not in the archive",
    ),
    "a million members": (many, f"more than {MAX_MEMBERS} members"),
    "sparse": (sparse, SPECIAL),
    "larger than the archive": (lambda path: sized(path, 2**33), "8,589,934,592 bytes, expected at most"),
    "sticks out": (lambda path: sized(path, 20_000), "ends beyond the end of the archive"),
    "negative size": (negative, "damaged header after 3 members"),
    "a damaged header": (damaged_header, "damaged header after 3 members"),
    "cut": (cut, "model_weights.ckpt.* expected at most"),
    "cut, packed": (cut_gzip, "ended before the end-of-stream marker"),
    "a bomb of weights": (lambda path: inflated(path, "./model_weights.ckpt"), "268,435,456 bytes, expected at most"),
    "a bomb of a configuration": (
        lambda path: inflated(path, "./model_config.yaml"),
        "268,435,456 bytes, expected at most",
    ),
    "a bomb of a name": (lambda path: sized_header(path, tarfile.GNUTYPE_LONGNAME, 2**30), "header of 1,073,741,824"),
    "a bomb of attributes": (lambda path: sized_header(path, tarfile.XHDTYPE, 2**30), "header of 1,073,741,824"),
    "gzip with nothing in it": (
        lambda path: (path.write_bytes(b"\x1f\x8b\x08\x00junk"), path)[1],
        "ended before the end-of-stream marker",
    ),
    "empty": (lambda path: (path.write_bytes(b""), path)[1], "empty file"),
    "bzip2": (lambda path: (path.write_bytes(b"BZh91AY&SY"), path)[1], "truncated header"),
}


@pytest.mark.parametrize("packed", [False, True])
def test_m2_the_harmless_archive_opens(tmp_path: Path, packed: bool) -> None:
    """Else each case would be refused for what the archive lacks, and none would prove anything."""
    assert_opens(tar(tmp_path / "x.nemo", harmless(), packed))


def contents(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_m2_archives_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    matrix = row("M2", subset=len(ARCHIVES), full=len(ARCHIVES))
    folder = tmp_path / "in" / "here"
    for name, (make, said) in list(ARCHIVES.items())[: matrix.n]:
        folder.mkdir(parents=True)
        with matrix.case(name):
            path = make(folder / "x.nemo")
            before, peak = contents(tmp_path), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            with pytest.raises(ArtefactError, match=said) as refusal:
                open_model(str(path), load_registry())
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024
            assert refusal.value.exit_status == 4 and str(path) in str(refusal.value)
            assert contents(tmp_path) == before, "something was written"
            assert grown < ALLOWED_MIB, f"{grown:.0f} MiB"
        shutil.rmtree(tmp_path / "in")
    assert not Path("/tmp/bionemo-outside").exists()
    matrix.check()
