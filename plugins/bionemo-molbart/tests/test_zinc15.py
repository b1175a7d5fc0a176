"""ZINC15 from a server on loopback: fetched, canonicalised, cut into v1's shards, the same whenever it is made."""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bionemo_core.errors import BioNeMoError, ConfigError, DataError, NetworkError
from bionemo_core.protocols import BuildContext, DataSplits
from bionemo_molbart.shards import SPLITS, ShardSizes, ShardWriter, sides_of
from bionemo_molbart.sources import smiles, zinc15
from bionemo_molbart.tokenizer import molbart_tokenizer
from bionemo_molbart.zinc15 import read_links, tranche_path

TOKENIZER = molbart_tokenizer()
SIZES = {"train_samples_per_file": 7, "val_samples_per_file": 1, "test_samples_per_file": 2}


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder, counts what it is asked for, and breaks the first transfer of one file off in the middle."""

    asked: list[str]
    breaks: set[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path in self.breaks:
            self.breaks.discard(self.path)
            body = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
            return
        super().do_GET()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, type[Quiet]]]:
    """Two tranches under an address; the second breaks off once."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    folder = tmp_path / "server" / "2D"
    alkanes = [f"{'C' * n}O ZINC{n:08d}" for n in range(1, 16)]
    others = ["OC(=O)c1ccccc1 ZINC00000101", "c1ccccc ZINC00000102", "CCN ZINC00000103", f"{'C' * 60} ZINC00000104"]
    for name, lines in (("AA/AAAA.txt", alkanes), ("BB/BBAB.txt", others)):
        path = folder / name
        path.parent.mkdir(parents=True)
        path.write_text("\n".join(["smiles zinc_id", *lines]) + "\n")
    handler = type("Handler", (Quiet,), {"asked": [], "breaks": {"/2D/BB/BBAB.txt"}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder.parent)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/2D", handler
    server.shutdown()
    server.server_close()
    thread.join()


def links(address: str, path: Path) -> str:
    """ZINC's own form, and a bare address."""
    path.write_text(f"# tranches\nmkdir -pv AA && wget {address}/AA/AAAA.txt -O AA/AAAA.txt\n\n{address}/BB/BBAB.txt\n")
    return str(path)


def made(links_file: str, home: Path, **options: Any) -> DataSplits:
    context = BuildContext(home=str(home), preparation_workers=0)
    return zinc15(links_file, **{**SIZES, **options}, tokenizer=TOKENIZER, context=context)


def rows(folder: Path) -> dict[str, list[str]]:
    return {
        f"{split}/{path.name}": path.read_text().splitlines()
        for split in SPLITS
        for path in sorted((folder / "processed" / split).iterdir())
    }


def test_shards_as_v1_lays_them(served: tuple[str, type[Quiet]], tmp_path: Path) -> None:
    address, handler = served
    splits = made(links(address, tmp_path / "links.txt"), tmp_path / "home")
    shards = rows(tmp_path / "home" / "zinc15")
    # 16 molecules are left: the open ring is none, C15 and C60 are too lipophilic; ten go to the first number.
    assert {name: len(lines) - 1 for name, lines in shards.items()} == {
        "train/x000.csv": 7,
        "train/x001.csv": 4,
        "val/x000.csv": 1,
        "val/x001.csv": 1,
        "test/x000.csv": 2,
        "test/x001.csv": 1,
    }
    assert {lines[0] for lines in shards.values()} == {"zinc_id,smiles"}
    everything = {line for lines in shards.values() for line in lines[1:]}
    assert {f"ZINC{n:08d},{'C' * n}O" for n in range(1, 15)} < everything
    assert "ZINC00000101,O=C(O)c1ccccc1" in everything
    assert len(everything) == 16
    assert (len(splits.train), len(splits.val or ()), len(splits.test or ())) == (11, 2, 3)
    assert sorted(handler.asked) == ["/2D/AA/AAAA.txt", "/2D/BB/BBAB.txt", "/2D/BB/BBAB.txt"]


def test_made_once_and_the_same_elsewhere(served: tuple[str, type[Quiet]], tmp_path: Path) -> None:
    address, handler = served
    listed = links(address, tmp_path / "links.txt")
    first = made(listed, tmp_path / "one")
    shards, asked = rows(tmp_path / "one" / "zinc15"), len(handler.asked)
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "one" / "zinc15").rglob("*.csv")}
    assert made(listed, tmp_path / "one").fingerprint == first.fingerprint
    assert len(handler.asked) == asked
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert made(listed, tmp_path / "two").fingerprint == first.fingerprint
    assert rows(tmp_path / "two" / "zinc15") == shards
    with pytest.raises(ConfigError, match=r"processed was made with seed 0 instead of 1\. Remove that folder"):
        made(listed, tmp_path / "one", seed=1)
    assert made(listed, tmp_path / "three", seed=1).fingerprint != first.fingerprint
    assert rows(tmp_path / "three" / "zinc15") != shards


def test_shards_that_were_changed_are_refused(served: tuple[str, type[Quiet]], tmp_path: Path) -> None:
    listed = links(served[0], tmp_path / "links.txt")
    made(listed, tmp_path / "home")
    shard = tmp_path / "home" / "zinc15" / "processed" / "train" / "x000.csv"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-4])
    with pytest.raises(DataError, match=r"x000\.csv: is not the file of"):
        made(listed, tmp_path / "home")
    shard.write_bytes(whole.replace(b"ZINC", b"SINK"))
    with pytest.raises(DataError, match=r"x000\.csv: was changed since it was written"):
        made(listed, tmp_path / "home")
    (shard.parents[1] / "manifest.json").write_text("{}")
    with pytest.raises(DataError, match="exists, but its manifest cannot be read"):
        made(listed, tmp_path / "home")


def test_shards_are_what_the_smiles_component_reads(served: tuple[str, type[Quiet]], tmp_path: Path) -> None:
    address, _ = served
    splits = made(links(address, tmp_path / "links.txt"), tmp_path / "home")
    folder = tmp_path / "home" / "zinc15" / "processed"
    shards = {split: "x[000..001]" for split in SPLITS}
    context = BuildContext(home=str(tmp_path / "home"))
    again = smiles(dataset_path=str(folder), **shards, tokenizer=TOKENIZER, context=context)
    for split in SPLITS:
        ours, theirs = getattr(splits, split), getattr(again, split)
        assert [ours[i] for i in range(len(ours))] == [theirs[i] for i in range(len(theirs))]
        assert ours.lengths.tolist() == theirs.lengths.tolist()


def test_the_tokenizer_s_rules_come_after_the_shards(served: tuple[str, type[Quiet]], tmp_path: Path) -> None:
    listed = links(served[0], tmp_path / "links.txt")
    made(listed, tmp_path / "home")
    shards = rows(tmp_path / "home" / "zinc15")
    short = made(listed, tmp_path / "home", max_length=12)
    assert rows(tmp_path / "home" / "zinc15") == shards
    assert max(part.lengths.max() for part in (short.train, short.val, short.test)) <= 12  # type: ignore[union-attr]


def test_every_molecule_has_one_split() -> None:
    sizes = ShardSizes(70, 10, 20)
    sides = sides_of(100, sizes, seed=3, number=0)
    assert np.bincount(sides).tolist() == [70, 10, 20]
    assert not np.array_equal(sides, sides_of(100, sizes, seed=3, number=1))
    assert np.bincount(sides_of(50, sizes, seed=3, number=2)).tolist() == [35, 5, 10]
    assert np.bincount(sides_of(3, sizes, seed=3, number=2)).tolist() == [1, 1, 1]
    assert sides_of(2, sizes, seed=3, number=2).tolist() == [0, 0]


def test_ids_with_commas_and_quotes_are_quoted(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, ShardSizes(1, 1, 1), seed=0) as writer:
        writer.add([(b'a,"b"', b"C")])
    assert (tmp_path / "train" / "x000.csv").read_text() == 'zinc_id,smiles\n"a,""b""",C\n'


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"val_samples_per_file": 0}, ConfigError, r"data\.val_samples_per_file: 0"),
        ({"download_workers": 0}, ConfigError, r"data\.download_workers: 0"),
        ({"max_weight": 1.0}, DataError, r"none of 19 molecules can be used \(.*weight above 1 18"),
        ({"on_invalid": "error"}, DataError, r"BBAB\.txt:3 record 'ZINC00000102': 'c1ccccc': is not SMILES"),
    ],
)
def test_what_cannot_be_used(
    options: dict[str, Any],
    kind: type[BioNeMoError],
    message: str,
    served: tuple[str, type[Quiet]],
    tmp_path: Path,
) -> None:
    with pytest.raises(kind, match=message):
        made(links(served[0], tmp_path / "links.txt"), tmp_path / "home", **options)


def test_a_tranche_that_is_not_there(served: tuple[str, type[Quiet]], tmp_path: Path) -> None:
    (tmp_path / "links.txt").write_text(f"{served[0]}/ZZ/ZZZZ.txt\n")
    with pytest.raises(NetworkError, match=r"ZZZZ\.txt"):
        made(str(tmp_path / "links.txt"), tmp_path / "home")


def test_lists_of_links() -> None:
    assert read_links("a\nwget https://x.org/A/a.txt -O q\nftp://y.org/b.txt.gz # c", "here") == [
        "https://x.org/A/a.txt",
        "ftp://y.org/b.txt.gz",
    ]
    for text, message in (("nothing", "names no tranche"), ("http://a/b\nhttp://a/b", "occurs twice")):
        with pytest.raises(DataError, match=message):
            read_links(text, "here")
    assert tranche_path(Path("raw"), "http://x.org/2D/AA/../AAAA.txt") == Path("raw/AA/AAAA.txt")
    with pytest.raises(DataError, match="names no file"):
        tranche_path(Path("raw"), "http://x.org/")
