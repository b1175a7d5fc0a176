"""File ranges as v1 wrote them: `x[000..049]` and its spellings that survive a shell."""

import re
from pathlib import Path

from bionemo_core.errors import ConfigError, DataError

_RANGE = re.compile(
    r"(?P<before>.*?)(?:\[|\(|<|_OP_)(?P<first>\d+)\.\.(?P<last>\d+)(?:\]|\)|>|_CL_)(?P<after>.*)", re.DOTALL
)
_OPENERS = re.compile(r"[\[(<]|_OP_|[\])>]|_CL_|\.\.")
_PAIRS = {"[": "]", "(": ")", "<": ">", "_OP_": "_CL_"}
_EXTENSION = ".csv"
_KNOWN_EXTENSIONS = (".csv", ".tsv", ".txt", ".gz")
MAX_MEMBERS = 100_000


def range_names(text: str, key: str = "data") -> list[str]:
    """The file names that a range stands for, `.csv` appended where no extension is given.

    Args:
        text: `x000`, `x[000..049]`, `x(000..049)`, `x<000..049>` or `x_OP_000..049_CL_`, with or without extension.
        key: the setting that the text comes from, for messages.

    Raises:
        ConfigError: the text is not such a range.
    """
    expected = "Write one file as x000, several as x[000..049]."
    if not text.strip() or "\0" in text:
        raise ConfigError(f"{key}: {text!r} names no file. {expected}")
    match = _RANGE.fullmatch(text)
    if match is None:
        if _OPENERS.search(text.replace("../", "")):
            raise ConfigError(f"{key}: {text!r} is not a range of files. {expected}")
        return [_with_extension(text)]
    before, first, last, after = match.group("before", "first", "last", "after")
    opener = text[len(before) : match.start("first")]
    closer = text[match.end("last") : len(text) - len(after)]
    if _PAIRS[opener] != closer or _OPENERS.search(after):
        raise ConfigError(f"{key}: {text!r} opens with {opener!r} and closes with {closer + after!r}. {expected}")
    low, high = int(first), int(last)
    if high < low:
        raise ConfigError(f"{key}: {text!r} counts down from {low} to {high}. {expected}")
    if high - low >= MAX_MEMBERS:
        raise ConfigError(f"{key}: {text!r} names {high - low + 1} files, at most {MAX_MEMBERS} are allowed.")
    return [_with_extension(f"{before}{number:0{len(first)}d}{after}") for number in range(low, high + 1)]


def _with_extension(name: str) -> str:
    return name if name.endswith(_KNOWN_EXTENSIONS) else name + _EXTENSION


def expand_range(folder: Path, text: str, key: str = "data") -> list[Path]:
    """The files of a range inside `folder`; every one exists.

    Raises:
        ConfigError: the text is not a range.
        DataError: a member is missing; the first is named, and how many others are.
    """
    paths = [folder / name for name in range_names(text, key)]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        others = f" and {len(missing) - 1} more of the {len(paths)}" if len(missing) > 1 else ""
        raise DataError(
            f"{key}: {text} needs {missing[0]}, which is not a file{others}. "
            "Name the shards that exist, or check data.dataset_path."
        )
    return paths
