"""Quotes file ranges such as `x[000..049]`, which Hydra's grammar would read as a list."""

import re

_RANGE = r"(?:\[\d+\.\.\d+\]|\(\d+\.\.\d+\)|<\d+\.\.\d+>)"
_PLAIN = r"[^,\s\[\](){}<>'\"]"
_WORD_WITH_RANGE = re.compile(rf"{_PLAIN}*(?:{_RANGE}{_PLAIN}*)+")
_QUOTED_OR_WORD = re.compile(rf"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|{_WORD_WITH_RANGE.pattern}")


_NESTED_INTERPOLATION = re.compile(r"\$\{[^'\"]*\$\{[^'\"]*\}[^'\"]*\}")


def quote_value(value: str) -> str:
    """Return `value` with quotes where Hydra's grammar needs them: ranges, and `${multiply:${a},2}`."""
    if _NESTED_INTERPOLATION.fullmatch(value):
        return f"'{value}'"
    return quote_ranges(value)


def quote_ranges(value: str) -> str:
    """Return `value` with single quotes around each bare word that holds a range; quoted text is unchanged."""
    return _QUOTED_OR_WORD.sub(lambda match: match[0] if match[0][0] in "'\"" else f"'{match[0]}'", value)
