"""Clusters of related proteins, so that a validation set has no relative of a training sequence.

Two sequences are linked if an ungapped alignment around a shared k-mer is significant (BLOSUM62 and Karlin-Altschul
statistics, as in BLAST), or if several alignments are significant together. Clusters are connected components of links
(single linkage). Clusters around representatives would not do: two relatives may have different representatives and
end up in different splits. A cluster that grows large through shared domains stays whole, and `split_by_clusters`
puts it into training. This suits up to some hundred thousand sequences; a table of mmseqs2 can be read instead.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bionemo_core.data.readers import FastaSource
from bionemo_core.data.splits.alignment import FirstPass, encode_sequences, extend, mask_low_complexity
from bionemo_core.data.splits.indices import CLUSTER_HEADER
from bionemo_core.errors import ConfigError
from bionemo_core.io.atomic import new_file

# Ungapped BLOSUM62 at the usual residue frequencies (Altschul 1991); expect 0.1 chance links per file.
_LAMBDA, _K = 0.3176, 0.134
_EXPECTED_BY_CHANCE = 0.1
_WEAK_SCORE = 45  # minimum score of an alignment that counts together with others of the same pair
_GAP_COST = 12  # subtracted from the score of each further alignment
_NEIGHBOURS = 200  # each occurrence of a k-mer is compared with this many next ones, longest sequences first


class Clusters(NamedTuple):
    """The counts of a clustering."""

    num_sequences: int
    num_clusters: int
    largest: int
    num_links: int


class _Forest:
    """Union-find over sequences; the root of a cluster is its lowest number, the longest sequence."""

    def __init__(self, size: int) -> None:
        self.parent = np.arange(size)
        self.num_links = 0

    def join(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> None:
        """Connect pairs of sequences, then point every sequence at its root."""
        parent = self.parent
        for a, b in zip(left.tolist(), right.tolist(), strict=True):
            while parent[a] != a:
                a = parent[a]
            while parent[b] != b:
                b = parent[b]
            if a != b:
                parent[max(a, b)] = min(a, b)
                self.num_links += 1
        while (parent[parent] != parent).any():
            parent = parent[parent]
        self.parent = parent


class _Sequences(NamedTuple):
    """The sequences of a file, longest first."""

    ids: list[bytes]
    residues: NDArray[np.int8]
    """All sequences with separators around each; see `alignment`."""
    owner: NDArray[np.int64]
    """The sequence that each residue belongs to."""
    duplicates: list[tuple[int, int]]
    """Pairs with the same id or the same residues."""


def cluster_fasta(path: Path, out: Path, *, k: int = 5, identity: float = 0.3) -> Clusters:
    """Cluster a FASTA file and write a table with the header `cluster_id<TAB>member_id`.

    The id of a cluster is that of its longest member.


    Args:
        path: a FASTA file of proteins, plain or compressed.
        out: the table to write; an existing file is replaced.
        k: the length of the k-mer that two relatives must share, 3 to 6 residues.
        identity: the least share of identical residues in an alignment that links, 0 to 1.

    Raises:
        ConfigError: k or identity is out of range.
        DataError: the file cannot be read as FASTA.
        StorageError: the table cannot be written.
    """
    if not 3 <= k <= 6:
        raise ConfigError(f"clusters: k is {k}, expected 3 to 6.")
    if not 0 <= identity <= 1:
        raise ConfigError(f"clusters: identity is {identity}, expected 0 to 1.")
    sequences = _read(path)
    forest = _Forest(len(sequences.ids))
    if sequences.duplicates:
        forest.join(*np.array(sequences.duplicates).T)
    _link(sequences, forest, k, identity)
    _write(sequences.ids, forest.parent, out)
    sizes = np.bincount(forest.parent)
    return Clusters(len(sequences.ids), int((sizes > 0).sum()), int(sizes.max()), forest.num_links)


def _read(path: Path) -> _Sequences:
    records = [(r.id, r.sequence.translate(None, b" \t\n*").upper()) for r in FastaSource(path).records(path) if r.id]
    records.sort(key=lambda record: -len(record[1]))
    first: dict[bytes, int] = {}
    duplicates = []
    for number, (name, sequence) in enumerate(records):
        for key in (b">" + name, sequence):
            if key and first.setdefault(key, number) != number:
                duplicates.append((first[key], number))
    residues, owner = encode_sequences([sequence for _, sequence in records])
    return _Sequences([name for name, _ in records], residues, owner, duplicates)


def _link(sequences: _Sequences, forest: _Forest, k: int, identity: float) -> None:
    residues = mask_low_complexity(sequences.residues)
    size = float((residues < 20).sum())
    significant = math.log(max(_K * size * size / 2 / _EXPECTED_BY_CHANCE, math.e)) / _LAMBDA
    significant = max(significant, _WEAK_SCORE)
    first_pass = FirstPass(residues, k)
    weak = []
    for left, right in _shared_kmers(residues, sequences.owner, forest, k):
        passed = first_pass(left, right)
        left, right = left[passed], right[passed]
        score, identical, begin, end = extend(residues, left, right)
        good = (score >= _WEAK_SCORE) & (identical >= identity * (end - begin))
        pair = sequences.owner[left[good]], sequences.owner[right[good]]
        strong = score[good] >= significant
        forest.join(pair[0][strong], pair[1][strong])
        weak.append(np.stack([*pair, (left - right)[good], score[good]])[:, ~strong])
    if weak:
        forest.join(*_combine_weak_links(np.concatenate(weak, axis=1), significant))


def _shared_kmers(
    residues: NDArray[np.int8], owner: NDArray[np.int64], forest: _Forest, k: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield pairs of positions with the same k-mer in sequences that are not linked yet.

    Round d pairs each occurrence with the d-th next one. A family is thus connected in the first rounds, and the
    later rounds skip it.
    """
    kmers = _kmers(residues, k)
    positions = np.argsort(kmers, kind="stable")
    positions = positions[np.searchsorted(kmers[positions], 0) :]
    ordered = kmers[positions]
    places = np.arange(len(ordered))
    for distance in range(1, _NEIGHBOURS + 1):
        # Keep only the places with an equal k-mer at this distance.
        places = places[places + distance < len(ordered)]
        places = places[ordered[places] == ordered[places + distance]]
        if not places.size:
            return
        left, right = positions[places], positions[places + distance]
        unlinked = forest.parent[owner[left]] != forest.parent[owner[right]]
        left, right = left[unlinked], right[unlinked]
        starts_run = (kmers[left - 1] < 0) | (kmers[left - 1] != kmers[right - 1])
        yield left[starts_run], right[starts_run]


def _kmers(residues: NDArray[np.int8], k: int) -> NDArray[np.int64]:
    """Return the number of the k-mer at each position; -1 if it has a non-standard residue."""
    count = len(residues) - k + 1
    codes = np.zeros(count, dtype=np.int64)
    valid = np.ones(count, dtype=np.bool_)
    for offset in range(k):
        part = residues[offset : offset + count]
        codes = codes * 20 + part
        valid &= part < 20
    codes[~valid] = -1
    return codes


def _combine_weak_links(weak: NDArray[np.int64], significant: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find pairs whose alignments on different diagonals are significant in sum, at a cost for each further one."""
    weak = weak[:, np.lexsort((-weak[3], weak[2], weak[1], weak[0]))]
    new = np.ones(weak.shape[1], dtype=np.bool_)
    new[1:] = (weak[:3, 1:] != weak[:3, :-1]).any(axis=0)
    left, right, _, score = weak[:, new]
    if not left.size:
        return left, right
    starts = np.flatnonzero(np.r_[True, (left[1:] != left[:-1]) | (right[1:] != right[:-1])])
    total = np.add.reduceat(score - _GAP_COST, starts) + _GAP_COST
    linked = starts[total >= significant]
    return left[linked], right[linked]


def _write(ids: list[bytes], parent: NDArray[np.int64], out: Path) -> None:
    order = np.argsort(parent, kind="stable")
    with new_file(out) as stream:
        stream.write("\t".join(CLUSTER_HEADER).encode() + b"\n")
        written: set[bytes] = set()
        for number in order.tolist():
            if ids[number] not in written:
                stream.write(ids[parent[number]] + b"\t" + ids[number] + b"\n")
                written.add(ids[number])
