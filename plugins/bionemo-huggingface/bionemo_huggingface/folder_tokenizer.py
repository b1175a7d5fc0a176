"""From the tokenizer files of a folder to the parameters of this plugin's tokenizers, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from bionemo_core.errors import ArtefactError, ConfigError
from bionemo_core.interop.connector import ForeignModel
from bionemo_huggingface.families import is_known
from bionemo_huggingface.sizes import ANY_LETTER, PROTBERT_PIECES, RARE_LETTERS
from bionemo_huggingface.tokenizer import LetterTokenizer, PieceTokenizer, pieces_of

SETTINGS = "tokenizer_config.json"
_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model")
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""How SentencePiece writes the space before a word."""
_PRINTABLE = [chr(code) for code in range(33, 127)]
_PROTT5_LETTERS = "ALGVSREDTIPKFQNYMHWCXBOUZ"
_MANY = 100_000
"""A `model_max_length` above this means that there is no limit."""
_READ_SETTINGS = (
    *("tokenizer_class", "do_lower_case", "strip_accents", "tokenize_chinese_chars", "add_prefix_space", "extra_ids"),
    *("legacy", "added_tokens_decoder", "additional_special_tokens", "bos_token", "eos_token", "cls_token"),
    *("sep_token", "pad_token", "unk_token", "mask_token", "do_basic_tokenize", "trim_offsets"),
)
"""The keys of tokenizer_config.json that are used; others could name files or code."""


class FolderVocabulary(NamedTuple):
    """A tokenizer of this plugin that gives the same tokens as the folder's."""

    name: str
    params: dict[str, Any]
    max_length: int | None
    """The longest text in tokens that the folder states."""


def read_vocabulary(source: ForeignModel, replaced: str | None) -> FolderVocabulary | None:
    """Return the tokenizer of a folder; None if the folder has none.

    Args:
        source: the folder.
        replaced: letters that are read as X; None: as the authors of a known vocabulary publish.

    Raises:
        ArtefactError: it cannot be read, or does something that this plugin's tokenizers do not.
    """
    if not any(name in source.files for name in _VOCABULARIES):
        return None
    tokenizer = _open(source)
    pieces = pieces_of(tokenizer.get_vocab())
    ids = _special_ids(tokenizer, source.where)
    special = {*tokenizer.all_special_ids, *(i for i, piece in enumerate(pieces) if _is_special(piece))}
    named = {ids[key] for key in ("pad_id", "unk_id", "bos_id", "eos_id", "mask_id")}
    params: dict[str, Any] = {**ids, "other_special_ids": sorted(special - named)}
    max_length = longest_text(source.files, source.where)
    ordinary = [piece.removeprefix(_SPACE) for i, piece in enumerate(pieces) if i not in special | named]
    if all(len(piece) == 1 and piece.isascii() for piece in ordinary if piece):
        letter_ids = _ids_of_letters(tokenizer, ids["unk_id"])
        params |= {"pieces": _bare(pieces), "letters": "".join(letter_ids), "letter_ids": list(letter_ids.values())}
        params |= _replaced(replaced, pieces, ordinary, letter_ids, source.where)
        return FolderVocabulary("huggingface_letters", params, max_length)
    if replaced:
        raise ArtefactError(f"{source.where}: its tokens have several letters. Leave out connector.replaced.")
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is None:
        raise ArtefactError(
            f"{source.where}: {type(tokenizer).__name__} of transformers has no fast form. Save the folder again with "
            "a tokenizer.json."
        )
    params["definition"] = plain_definition(fast.to_str())
    return FolderVocabulary("huggingface_pieces", params, max_length)


def plain_definition(text: str) -> str:
    """Return the content of a tokenizer.json in a form that a configuration can hold."""
    return json.dumps(json.loads(text), separators=(",", ":")).replace("$", "\\u0024")


def _open(source: ForeignModel) -> Any:
    """Return the tokenizer that transformers makes of the folder's files; no code and no other file is read.

    Raises:
        ArtefactError: it makes none.
    """
    from transformers import AutoTokenizer

    settings = {key: value for key, value in _settings(source.files, source.where).items() if key in _READ_SETTINGS}
    if any(line.isupper() and not _is_special(line) for line in source.files.get("vocab.txt", b"").decode().split()):
        settings.setdefault("do_lower_case", False)  # else the library's default would make every residue unknown
    kind = source.config.values.get("model_type")
    with TemporaryDirectory() as name:
        folder = Path(name)
        for file, content in source.files.items():
            (folder / file).write_bytes(content)
        (folder / SETTINGS).write_text(json.dumps(settings))
        (folder / "config.json").write_text(json.dumps({"model_type": kind} if is_known(kind) else {}))
        try:
            return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # the libraries raise what they like
            raise ArtefactError(f"{source.where}: transformers cannot read its tokenizer: {error}") from error


def longest_text(files: Mapping[str, bytes], where: str) -> int | None:
    """Return the longest text in tokens that the tokenizer's files state; None if they state none.

    Raises:
        ArtefactError: tokenizer_config.json is not JSON.
    """
    limit = _settings(files, where).get("model_max_length")
    return int(limit) if isinstance(limit, int | float) and 0 < limit <= _MANY else None


def with_longest_text(files: Mapping[str, bytes], length: int, where: str) -> dict[str, bytes]:
    """Return the tokenizer's files with `length` as the longest text in tokens."""
    settings = {**_settings(files, where), "model_max_length": length}
    return {**files, SETTINGS: json.dumps(settings).encode()}


def _settings(files: Mapping[str, bytes], where: str) -> Mapping[str, Any]:
    try:
        found = json.loads(files.get(SETTINGS, b"{}"))
    except ValueError as error:
        raise ArtefactError(f"{where}: {SETTINGS} beside it is not JSON: {error}.") from error
    return found if isinstance(found, dict) else {}


def _special_ids(tokenizer: Any, where: str) -> dict[str, Any]:
    """Return the special ids, and whether a text has a token before and after it.

    Raises:
        ArtefactError: it has several.
    """
    inner = tokenizer("A", add_special_tokens=False)["input_ids"]
    whole = tokenizer("A")["input_ids"]
    start = next((i for i in range(len(whole)) if whole[i : i + len(inner)] == inner), 0)
    before, after = whole[:start], whole[start + len(inner) :]
    if len(before) > 1 or len(after) > 1:
        raise ArtefactError(
            f"{where}: its tokenizer puts {len(before)} tokens before a text and {len(after)} after it; at most one "
            "of each is supported."
        )

    def first(*names: str) -> int:
        known = (getattr(tokenizer, f"{name}_token_id", None) for name in names)
        return next((i for i in known if i is not None), 0)

    return {
        "pad_id": first("pad", "eos", "sep"),
        "unk_id": first("unk", "pad"),
        "bos_id": before[0] if before else first("cls", "bos", "pad"),
        "eos_id": after[0] if after else first("sep", "eos", "pad"),
        "mask_id": first("mask", "unk"),
        "has_bos": bool(before),
        "has_eos": bool(after),
    }


def _is_special(piece: str) -> bool:
    """Return whether a piece is no text: <null_1>, [unused0], or a sign beyond ASCII."""
    marked = len(piece) > 1 and (piece[0], piece[-1]) in (("<", ">"), ("[", "]"))
    return marked or piece == _SPACE or not piece.removeprefix(_SPACE).isascii()


def _bare(pieces: Sequence[str]) -> list[str]:
    """Return the pieces without SentencePiece's mark of a space, where the rest is not a piece itself."""
    taken = set(pieces)
    return [bare if (bare := piece.removeprefix(_SPACE)) and bare not in taken else piece for piece in pieces]


def _ids_of_letters(tokenizer: Any, unk_id: int) -> dict[str, int]:
    """Return the id of each printable letter that is one known token when it stands as a word of its own."""
    try:
        encoded = tokenizer([[letter] for letter in _PRINTABLE], is_split_into_words=True, add_special_tokens=False)
    except (AssertionError, ValueError, TypeError):  # some take no words
        encoded = tokenizer(_PRINTABLE, add_special_tokens=False)
    found = zip(_PRINTABLE, encoded["input_ids"], strict=True)
    return {letter: ids[0] for letter, ids in found if len(ids) == 1 and ids[0] != unk_id}


def _replaced(
    asked: str | None, pieces: Sequence[str], ordinary: Sequence[str], letters: Mapping[str, int], where: str
) -> dict[str, str]:
    """Return which letters are read as X: those that were asked for, else those of the authors' recipe."""
    published = tuple(pieces) == PROTBERT_PIECES or "".join(ordinary) == _PROTT5_LETTERS
    replaced = (RARE_LETTERS if published else "") if asked is None else asked
    if replaced and ANY_LETTER not in letters:
        raise ArtefactError(f"{where}: its vocabulary has no {ANY_LETTER}. Leave out connector.replaced.")
    return {"replaced": replaced, "replacement": ANY_LETTER if replaced else ""}


def tokenizer_files(tokenizer: Any, where: str) -> dict[str, bytes]:
    """Return the files from which transformers makes a tokenizer of this plugin again.

    Raises:
        ConfigError: it is another plugin's, or several letters are read as one piece.
    """
    if isinstance(tokenizer, PieceTokenizer):
        definition = tokenizer.definition
    elif isinstance(tokenizer, LetterTokenizer) and all(tokenizer.pieces[i] == c for c, i in tokenizer.letters.items()):
        definition = _letters_as_words(tokenizer)
    else:
        raise ConfigError(f"{where}: its tokenizer cannot be written. Use task.to=artefact.")
    roles = {"pad": tokenizer.pad_id, "unk": tokenizer.unk_id, "mask": tokenizer.mask_id}
    roles |= {"cls": tokenizer.bos_id, "sep": tokenizer.eos_id}
    names = {f"{role}_token": tokenizer.pieces[i] for role, i in roles.items()}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    return {"tokenizer.json": definition.encode(), SETTINGS: json.dumps(settings).encode()}


def _letters_as_words(tokenizer: LetterTokenizer) -> str:
    """Return a tokenizer.json that reads each letter as a word."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

    pieces = tokenizer.pieces
    ids = {piece: i for i, piece in enumerate(pieces)}
    made = Tokenizer(models.WordLevel(ids, unk_token=pieces[tokenizer.unk_id]))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex("."), "isolated")]
    )
    made.decoder = decoders.Fuse()
    made.add_special_tokens([AddedToken(pieces[i], special=True) for i in sorted(tokenizer.special_ids)])
    form, ends = tokenizer.input_form, (pieces[tokenizer.bos_id], pieces[tokenizer.eos_id])
    template = [ends[0]] * form.bos + ["$A"] + [ends[1]] * form.eos
    made.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(piece, ids[piece]) for piece in dict.fromkeys(ends)]
    )
    return str(made.to_str())
