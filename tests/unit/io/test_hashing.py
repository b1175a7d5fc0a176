"""Digests are those of the algorithms, and stay what stored files and seeds were made with."""

import os
import random

import pytest

from bionemo_core.io import hashing

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-4
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_known_answers():
    assert hashing.hash_bytes(b"abc") == hashing.hash_chunks([b"a", memoryview(b"bc")]) == ABC
    assert hashing.hash_bytes(b"") == hashing.hash_chunks([]) == EMPTY
    started = hashing.start_hash()
    started.update(b"ab")
    started.update(bytearray(b"c"))
    assert (started.hexdigest(), started.digest_size) == (ABC, 32)
    md5 = hashing.start_hash("md5")
    md5.update(b"abc")
    assert md5.hexdigest() == "900150983cd24fb0d6963f7d28e17f72"  # RFC 1321


def test_seeds_and_fingerprints_stay_what_they_were():
    assert hashing.derive_seed(b"masking").hex() == "fbd7f78888610b32"
    assert hashing.fingerprint_chunks([b"ab", b"c"]) == "cf4ab791c62b8d2b2109c90275287816"
    assert hashing.canonical({"b": [1, 2.5, None], "a": "é"}) == b'{"a":"\\u00e9","b":[1,2.5,null]}'
    assert hashing.fingerprint_of({"b": [1, 2.5, None], "a": "é"}) == "84afbf1d4853005f9dd0c81cb1819b53"
    assert hashing.seal({"b": 1, "a": 2, "sha256": "old"}) == {
        "b": 1,
        "a": 2,
        "sha256": "d3626ac30a87e6f7a6428233b3c68299976865fa5508e4267c5415c76af7a772",
    }


@pytest.mark.parametrize("size", [0, 1, 2**16, 2**16 + 1, 3 * 2**20])
@pytest.mark.parametrize("from_disk", [False, True])
def test_files(tmp_path, size, from_disk, monkeypatch):
    monkeypatch.setattr(hashing, "CHUNK_BYTES", 2**20)
    path = tmp_path / "a.bin"
    content = random.Random(size).randbytes(size)
    path.write_bytes(content)
    assert hashing.hash_file(path, from_disk=from_disk) == (size, hashing.hash_bytes(content))


def test_errors_name_the_file(tmp_path, monkeypatch):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(OSError, match=r"No such file|Is a directory") as raised:
            hashing.hash_file(path)
        assert raised.value.filename == str(path)
    path = tmp_path / "a"
    path.touch()

    def broken(*arguments):
        raise OSError(5, os.strerror(5))

    monkeypatch.setattr(os, "readv", broken)
    with pytest.raises(OSError, match="Input/output error") as raised:
        hashing.hash_file(path)
    assert raised.value.filename == str(path)
