"""ZINC15 as v1 prepares it: tranches are downloaded, canonicalised, merged, cut into parts and split.

Under the folder: `raw/` holds the tranches as they came, `processed/{train,val,test}/x000.csv` the result with the
header `zinc_id,smiles` and a manifest of what it was made of. Once that is there, `raw/` may go.
"""

import json
import logging
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from bionemo_core.data.downloads import canonical, fetch, fingerprint_of, hash_file, lock_beside, new_folder, seal
from bionemo_core.data.readers import CsvSource, SmilesSource, read_blocks
from bionemo_core.data.store.filtering import Tally, filter_blocks, worker_pool
from bionemo_core.data.store.prepare import prepare
from bionemo_core.data.store.report import summary
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.protocols import BuildContext, DataSplits
from bionemo_molbart.molecules import RDKIT_VERSION
from bionemo_molbart.rules import MoleculeFilter, TokenFilter
from bionemo_molbart.shards import SPLITS, ShardSizes, ShardWriter

log = logging.getLogger("bionemo")

MANIFEST = "manifest.json"
_FORMAT = "bionemo zinc15 shards 1"
_REMOVE = "Remove that folder to make it again, or name another data.output_dir."
_LINK = re.compile(r"(?:https?|ftp|file)://\S+")


def links_from(links_file: str, folder: Path) -> list[str]:
    """Read the addresses in a list of tranches; the list is a file or a URL.

    Raises:
        DataError: the list cannot be read or names no tranche.
        NetworkError: it cannot be fetched.
    """
    path = Path(links_file)
    if _LINK.fullmatch(links_file):
        path = fetch(links_file, folder / "links" / tranche_path(Path(), links_file).name)
    try:
        return read_links(path.read_text(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"zinc15: {path}: cannot be read ({error}). Name the list with data.links_file.") from error


def read_links(text: str, where: str) -> list[str]:
    """Parse a list of tranches: one address per line, alone or inside ZINC's download command.

    Raises:
        DataError: there is none, or one occurs twice.
    """
    links = [match.group() for line in text.splitlines() if (match := _LINK.search(line.partition("#")[0]))]
    if not links:
        raise DataError(f"zinc15: {where}: names no tranche, expected lines such as https://.../2D/AA/AAAA.txt.")
    twice = next((link for link in links if links.count(link) > 1), None) if len(set(links)) < len(links) else None
    if twice:
        raise DataError(f"zinc15: {where}: {twice} occurs twice. Name each tranche once.")
    return links


def tranche_path(folder: Path, link: str) -> Path:
    """Return the path of a tranche: under the last folder of its address, as at ZINC.

    Raises:
        DataError: the address names no file.
    """
    parts = [part for part in PurePosixPath(urlsplit(link).path).parts if part not in ("/", "..", ".")]
    if not parts:
        raise DataError(f"zinc15: {link} names no file, expected an address such as https://.../2D/AA/AAAA.txt.")
    return folder.joinpath(*parts[-2:])


def download(links: Sequence[str], folder: Path, num_workers: int) -> list[Path]:
    """Download the missing tranches to `folder`; return all of them in the order of the links.

    Raises:
        ConfigError: the number of workers is not positive.
        DataError: two links would be kept in the same place.
        NetworkError: a tranche cannot be had.
        StorageError: the disk refuses one.
    """
    if num_workers < 1:
        raise ConfigError(f"data.download_workers: {num_workers}, expected at least 1.")
    paths = [tranche_path(folder, link) for link in links]
    if len(set(paths)) < len(paths):
        same = next(path for path in paths if paths.count(path) > 1)
        raise DataError(f"zinc15: two links would be saved as one file, {same}. Give each tranche its own path.")
    with ThreadPoolExecutor(num_workers) as pool:
        return list(pool.map(fetch, links, paths))


@dataclass(frozen=True)
class Zinc15:
    """The shards made from tranches: their folder and settings."""

    processed: Path
    rules: MoleculeFilter
    sizes: ShardSizes
    seed: int = 0
    num_workers: int | None = None

    def made_of(self, links: Sequence[str]) -> dict[str, Any]:
        """Return the settings that the shards depend on; these exclude the tokenizer and RDKit's version."""
        return {
            "links": fingerprint_of(list(links)),
            "options": asdict(self.rules.options),
            "sizes": asdict(self.sizes),
            "seed": self.seed,
        }

    def found(self, links: Sequence[str]) -> dict[str, Any] | None:
        """Return the manifest of existing shards, or None if there are none.

        Raises:
            ConfigError: they were made of other tranches, or with other options.
            DataError: they are damaged, or something else is there.
        """
        if not self.processed.exists():
            return None
        try:
            manifest: dict[str, Any] = json.loads((self.processed / MANIFEST).read_bytes())
            if seal(manifest) != manifest or manifest["format"] != _FORMAT:
                raise ValueError("changed since it was written")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"zinc15: {self.processed}: exists, but its manifest cannot be read ({error}). If v1 made the folder, "
                f"use data=smiles data.dataset_path={self.processed}. {_REMOVE}"
            ) from error
        asked, made = self.made_of(links), manifest["made_of"]
        if made != asked:
            different = ", ".join(
                f"{key} {made.get(key)} instead of {value}" for key, value in asked.items() if made.get(key) != value
            )
            raise ConfigError(f"zinc15: {self.processed} was made with {different}. {_REMOVE}")
        for name, facts in manifest["files"].items():
            path = self.processed / name
            if not path.is_file() or path.stat().st_size != facts["bytes"]:
                raise DataError(
                    f"zinc15: {path}: is not the file of {facts['bytes']:,} bytes that was written. {_REMOVE}"
                )
        return manifest

    def make(self, tranches: Sequence[Path], links: Sequence[str]) -> dict[str, Any]:
        """Write the shards, and return their manifest.

        Raises:
            DataError: a tranche cannot be read, or none of the molecules can be used.
            StorageError: the disk refuses a file.
        """
        with new_folder(self.processed) as folder:
            tally, writer = self._written(tranches, folder)
            used = tally.read - sum(tally.rejected.values())
            if not used:
                reasons = ", ".join(f"{reason} {count}" for reason, count in tally.rejected.items())
                raise DataError(
                    f"zinc15: none of {tally.read} molecules can be used ({reasons or 'the files are empty'})."
                )
            files = [folder / split / f"x{n:03d}.csv" for split in SPLITS for n in range(writer.num_shards)]
            manifest = seal(
                {
                    "format": _FORMAT,
                    "made_of": self.made_of(links),
                    "rdkit": RDKIT_VERSION,
                    "splits": writer.counts,
                    "sources": [{"name": path.name} for path in tranches],
                    "records": {
                        "read": tally.read,
                        "used": used,
                        "rejected": dict(tally.rejected),
                        "notes": dict(+tally.notes),
                    },
                    "examples": tally.examples,
                    "files": {
                        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": hash_file(path).sha256}
                        for path in files
                    },
                }
            )
            (folder / MANIFEST).write_bytes(canonical(manifest))
        return manifest

    def _written(self, tranches: Sequence[Path], folder: Path) -> tuple[Tally, ShardWriter]:
        tally, source = Tally(), SmilesSource(list(tranches))
        num_bytes = sum(path.stat().st_size for path in tranches)
        with (
            worker_pool(self.num_workers, self.rules, num_bytes) as pool,
            ShardWriter(folder, self.sizes, self.seed) as writer,
        ):
            for path in source.paths:
                for block in filter_blocks(read_blocks(source, path), self.rules, "zinc15", path, pool):
                    writer.add(zip(block.ids.values(), block.sequences.values(), strict=True))
                    tally.add(block.tally)
        return tally, writer


def zinc15_splits(
    links: Sequence[str], shards: Zinc15, rules: TokenFilter, context: BuildContext, download_workers: int
) -> DataSplits:
    """Prepare the splits of ZINC15, each in its own store; download missing tranches and write missing shards.

    Raises:
        ConfigError: shards are there that were made with other options.
        DataError: a file cannot be read or was changed, or a split has no molecule that can be used.
        NetworkError: a tranche cannot be had.
        StorageError: something cannot be written.
    """
    with lock_beside(shards.processed, "zinc15"):
        manifest = shards.found(links)
        if manifest is None:
            raw = shards.processed.with_name("raw")
            manifest = shards.make(download(links, raw, download_workers), links)
            log.info("%s", summary(manifest))
    stores = {}
    for split in SPLITS:
        names = [name for name in manifest["files"] if name.startswith(f"{split}/")]
        source = CsvSource([shards.processed / name for name in names], column="smiles", id_column="zinc_id")
        stores[split] = prepare(source, rules, context)
        for name, facts in zip(names, stores[split].manifest["sources"], strict=True):
            if facts["sha256"] != manifest["files"][name]["sha256"]:
                raise DataError(f"zinc15: {shards.processed / name}: was changed since it was written. {_REMOVE}")
    fingerprint = fingerprint_of({split: store.fingerprint for split, store in stores.items()})
    return DataSplits(stores["train"], stores["val"], stores["test"], fingerprint)
