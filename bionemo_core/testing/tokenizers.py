"""Checks of a tokenizer: ids without gaps, distinct special tokens, and texts that survive a round trip."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np

from bionemo_core.plugins import RegisteredComponent
from bionemo_core.protocols import BuildContext, CanonicalForm, Tokenizer
from bionemo_core.testing.subject import Subject, explain_failures, fail

SPECIAL = ("pad_id", "bos_id", "eos_id", "unk_id", "mask_id")
MEMBERS = ("pieces", *SPECIAL, "special_ids", "vocab_size", "encode", "decode")
NUM_TEXTS = 50
PIECES_PER_TEXT = 40
STRANGE = "~!;`{}|_\"'^&?*\x01\x7f\u2603\u6f22"
"""Characters, of which some are in no biological alphabet."""

LEAST_SAMPLE = 100

MAY_BE_ONE = {"pad_id", "bos_id"}
"""Special tokens that may share an id: a T5's decoder starts with the padding token."""


def check_tokenizer(subject: Subject, registered: RegisteredComponent) -> None:
    """Check that a tokenizer keeps the contract of `protocols.Tokenizer`.

    Raises:
        ConformanceError: it does not; the message names the id, the piece or the text.
    """
    where = f"tokenizer {registered.name!r}"
    tokenizer = subject.build(registered, context=BuildContext(home=str(subject.folder)))
    missing = [name for name in MEMBERS if not hasattr(tokenizer, name)]
    if missing:
        fail(f"{where}: it lacks {', '.join(missing)}, required by bionemo_core.protocols.Tokenizer.")
    with explain_failures(where):
        _check_ids(where, tokenizer)
        ordinary = [piece for i, piece in enumerate(tokenizer.pieces) if i not in tokenizer.special_ids]
        _check_texts(where, tokenizer, ordinary)
        _check_unknown(where, tokenizer, ordinary)
        if hasattr(tokenizer, "canonical"):
            _check_canonical(where, tokenizer.canonical, ordinary)
        if hasattr(tokenizer, "sample_texts"):
            _check_sample(where, tokenizer)


def _check_ids(where: str, tokenizer: Tokenizer) -> None:
    pieces = list(tokenizer.pieces)
    if tokenizer.vocab_size != len(pieces):
        fail(
            f"{where}: vocab_size is {tokenizer.vocab_size}, but there are {len(pieces)} pieces. Ids must run from 0 "
            "without a gap, one per piece; the model pads the embedding table."
        )
    if len(set(pieces)) != len(pieces):
        twice = next(piece for piece in pieces if pieces.count(piece) > 1)
        fail(f"{where}: the piece {twice!r} occurs twice. Each id needs its own piece.")
    ids = {name: getattr(tokenizer, name) for name in SPECIAL}
    for name, i in ids.items():
        if not 0 <= i < len(pieces):
            fail(f"{where}: {name} is {i}, expected an id from 0 to {len(pieces) - 1}.")
        if i not in tokenizer.special_ids:
            fail(
                f"{where}: {name} {i} is not in special_ids {sorted(tokenizer.special_ids)}. "
                "Add it, or masking would change it."
            )
        same = next((other for other in SPECIAL if other != name and ids[other] == i), None)
        if same and {name, same} != MAY_BE_ONE:
            fail(f"{where}: {name} and {same} are both {i}; special tokens must be distinct.")


def _check_texts(where: str, tokenizer: Tokenizer, ordinary: list[str]) -> None:
    if not ordinary:
        fail(f"{where}: all {tokenizer.vocab_size} pieces are special, so no text can be encoded.")
    random = np.random.default_rng(0)
    texts = ["".join(random.choice(ordinary, size=PIECES_PER_TEXT)) for _ in range(NUM_TEXTS)]
    for text in [*ordinary, *texts]:
        ids = _encode(where, tokenizer, text)
        again = tokenizer.decode(ids.tolist())
        if again != text:
            fail(f"{where}: {text!r}, made of its own pieces, is decoded as {again!r} (ids {ids.tolist()}).")
        if text.isascii() and not np.array_equal(tokenizer.encode(text.encode()), ids):
            fail(f"{where}: {text!r} has other ids as bytes than as str. They must agree: prepared data is bytes.")
    framed = [tokenizer.bos_id, *_encode(where, tokenizer, texts[0]).tolist(), tokenizer.eos_id, tokenizer.pad_id]
    if tokenizer.decode(framed) != texts[0]:
        fail(f"{where}: decode leaves special tokens in the text: {tokenizer.decode(framed)!r}.")


def _encode(where: str, tokenizer: Tokenizer, text: str, *, may_be_unknown: bool = False) -> Any:
    ids = tokenizer.encode(text)
    if not isinstance(ids, np.ndarray) or ids.dtype != np.int32 or ids.ndim != 1:
        got = f"{ids.dtype}{list(ids.shape)}" if isinstance(ids, np.ndarray) else type(ids).__name__
        fail(f"{where}: encode returns {got}, expected an int32 array of shape [tokens].")
    if ids.size and not (ids.min() >= 0 and ids.max() < tokenizer.vocab_size):
        fail(f"{where}: encode({text!r}) gives ids outside 0 to {tokenizer.vocab_size - 1}: {ids.tolist()}.")
    special = sorted(set(ids.tolist()) & set(tokenizer.special_ids))
    if special and not may_be_unknown:
        fail(
            f"{where}: encode({text!r}), made of its own pieces, gives the special ids {special}. The core adds BOS "
            "and EOS itself, and no ordinary piece may be unknown."
        )
    return ids


def _check_unknown(where: str, tokenizer: Tokenizer, ordinary: list[str]) -> None:
    known = set("".join(ordinary))
    strange = next((character for character in STRANGE if character not in known), None)
    if strange is None:
        return  # every character is a piece, as in an alphabet of bytes
    ids = np.asarray(tokenizer.encode(f"{ordinary[0]}{strange}{ordinary[0]}")).tolist()
    if tokenizer.unk_id not in ids:
        fail(
            f"{where}: the unknown character {strange!r} becomes {ids}, expected unk_id {tokenizer.unk_id} among them: "
            "unknown characters must not be dropped silently."
        )


def _check_sample(where: str, tokenizer: Any) -> None:
    """Check that the sample texts of a tokenizer are enough to train on, in its alphabet, and the same again."""
    texts = list(tokenizer.sample_texts())
    if len(texts) < LEAST_SAMPLE:
        fail(f"{where}: sample_texts has {len(texts)} texts, expected {LEAST_SAMPLE} or more: data=sample splits them.")
    if texts != list(tokenizer.sample_texts()):
        fail(f"{where}: sample_texts differs from call to call, so no run could resume. Seed its generator.")
    for number, text in enumerate(texts):
        if tokenizer.unk_id in _encode(where, tokenizer, text, may_be_unknown=True):
            fail(f"{where}: sample text {number}, {text[:40]!r}, has characters outside the alphabet. Leave them out.")


def _check_canonical(where: str, canonical: Any, ordinary: Sequence[str]) -> None:
    """Check that a canonical form is stable, says why a text has none, and that a copy of it gives the same."""
    if not isinstance(canonical, CanonicalForm):
        fail(f"{where}: canonical is {type(canonical).__name__}, which lacks a member of protocols.CanonicalForm.")
    copy = deepcopy(canonical)  # as another process gets it
    texts = [text.encode() for text in (*ordinary, *(one + other for one in ordinary[:5] for other in ordinary[:5]))]
    for text in texts:
        form = canonical(text)
        if form is None:
            if not canonical.why_not(text):
                fail(
                    f"{where}: canonical refuses {text!r}, and why_not has no reason. Say what is wrong with the text."
                )
            continue
        if not isinstance(form, bytes):
            fail(f"{where}: canonical({text!r}) is {form!r}, expected bytes or None.")
        if canonical(form) != form or copy(text) != form:
            fail(
                f"{where}: canonical({text!r}) is {form!r}, whose own form is {canonical(form)!r}, and by a copy, as "
                f"another process has it, {copy(text)!r}. Return a text that is its own canonical form, the same "
                "everywhere: duplicates and splits depend on it."
            )
