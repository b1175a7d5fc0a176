"""Quotes file ranges such as `x[000..049]`, which Hydra's grammar would take for a list."""

import re

_RANGE = r"(?:\[\d+\.\.\d+\]|\(\d+\.\.\d+\)|<\d+\.\.\d+>)"
_PLAIN = r"[^,\s\[\](){}<>'\"]"
_WORD_WITH_RANGE = re.compile(rf"{_PLAIN}*(?:{_RANGE}{_PLAIN}*)+")
_QUOTED_OR_WORD = re.compile(rf"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|{_WORD_WITH_RANGE.pattern}")


_NESTED_INTERPOLATION = re.compile(r"\$\{[^'\"]*\$\{[^'\"]*\}[^'\"]*\}")


def quoted(value: str) -> str:
    """`value` with what Hydra's grammar does not take bare in quotes: ranges, and `${multiply:${a},2}`."""
    if _NESTED_INTERPOLATION.fullmatch(value):
        return f"'{value}'"
    return quote_ranges(value)


def quote_ranges(value: str) -> str:
    """`value` with each bare word that holds a range in single quotes; what is quoted already stays."""
    return _QUOTED_OR_WORD.sub(lambda match: match[0] if match[0][0] in "'\"" else f"'{match[0]}'", value)
