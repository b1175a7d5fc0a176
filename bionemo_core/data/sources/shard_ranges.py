"""File ranges as in v1: `x[000..049]`, and spellings of it that need no quotes in a shell."""

import re
from pathlib import Path

from bionemo_core.data.readers.decompress import COMPRESSED_EXTENSIONS, split_extension
from bionemo_core.data.readers.formats import EXTENSIONS
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.io.staging import RANGE

_OPENERS = re.compile(r"[\[(<]|_OP_|[\])>]|_CL_|\.\.")
_PAIRS = {"[": "]", "(": ")", "<": ">", "_OP_": "_CL_"}
_EXTENSION = ".csv"
_KNOWN_EXTENSIONS = (*EXTENSIONS, ".txt")
MAX_FILES = 100_000


def expand_names(text: str, key: str = "data", extension: str = _EXTENSION) -> list[str]:
    """Return the file names of a range; `extension` is appended if the text has no known one.

    Args:
        text: `x000`, `x[000..049]`, `x(000..049)`, `x<000..049>` or `x_OP_000..049_CL_`, with or without an extension.
        key: the key of the text, for messages.
        extension: the extension with its dot; `.csv` in v1.

    Raises:
        ConfigError: the text is not a range.
    """
    expected = "Write one file as x000, several as x[000..049]."
    if not text.strip() or "\0" in text:
        raise ConfigError(f"{key}: {text!r} names no file. {expected}")
    match = RANGE.fullmatch(text)
    if match is None:
        if _OPENERS.search(text.replace("../", "")):
            raise ConfigError(f"{key}: {text!r} is not a range of files. {expected}")
        return [_with_extension(text, extension)]
    before, first, last, after = match.group("before", "first", "last", "after")
    opener = text[len(before) : match.start("first")]
    closer = text[match.end("last") : len(text) - len(after)]
    if _PAIRS[opener] != closer or _OPENERS.search(after):
        raise ConfigError(f"{key}: {text!r} opens with {opener!r} and closes with {closer + after!r}. {expected}")
    low, high = int(first), int(last)
    if high < low:
        raise ConfigError(f"{key}: {text!r} counts down from {low} to {high}. {expected}")
    if high - low >= MAX_FILES:
        raise ConfigError(f"{key}: {text!r} names {high - low + 1} files, at most {MAX_FILES} are allowed.")
    names = (f"{before}{number:0{len(first)}d}{after}" for number in range(low, high + 1))
    return [_with_extension(name, extension) for name in names]


def _with_extension(name: str, extension: str) -> str:
    return name if _has_extension(name) else name + extension


def _has_extension(name: str) -> bool:
    return name.lower().endswith(COMPRESSED_EXTENSIONS) or split_extension(name)[1] in _KNOWN_EXTENSIONS


def expand_range(folder: Path, text: str, key: str = "data") -> list[Path]:
    """Return the files of a range in `folder`, and check that each exists.

    Without an extension in the text, the files are `.csv`, as in v1, or have the extension of the first file.

    Raises:
        ConfigError: the text is not a range, or has no extension and files of several formats match.
        DataError: a file is missing; the message names the first and counts the others.
    """
    first = expand_names(text, key, "")[0]
    extension = _EXTENSION if _has_extension(first) else _detect_extension(folder / first, key)
    paths = [folder / name for name in expand_names(text, key, extension)]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        others = f" and {len(missing) - 1} more of the {len(paths)}" if len(missing) > 1 else ""
        raise DataError(
            f"{key}: {text} needs {missing[0]}, which is not a file{others}. "
            "Name only shards that exist, or check the folder."
        )
    return paths


def _detect_extension(first: Path, key: str) -> str:
    if first.with_name(first.name + _EXTENSION).is_file():
        return _EXTENSION
    endings = [extension + more for extension in _KNOWN_EXTENSIONS for more in ("", *COMPRESSED_EXTENSIONS)]
    found = [ending for ending in endings if first.with_name(first.name + ending).is_file()]
    if len(found) > 1:
        raise ConfigError(
            f"{key}: {first} could be {' or '.join(first.name + ending for ending in found)}. Add the extension."
        )
    return found[0] if found else _EXTENSION
