"""Quotes values that Hydra's grammar would not read: file ranges, addresses, paths with unusual letters."""

import re
import shlex

_RANGE = r"(?:\[\d+\.\.\d+\]|\(\d+\.\.\d+\)|<\d+\.\.\d+>)"
_PLAIN = r"[^,\s\[\](){}<>'\"]"
_WORD_WITH_RANGE = re.compile(rf"{_PLAIN}*(?:{_RANGE}{_PLAIN}*)+")
_QUOTED_OR_WORD = re.compile(rf"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|{_WORD_WITH_RANGE.pattern}")
_NESTED_INTERPOLATION = re.compile(r"\$\{[^'\"]*\$\{[^'\"]*\}[^'\"]*\}")
_SURELY_READ = re.compile(r"[\w/.+*@%|-]*", re.ASCII)
_PARTS = re.compile(r"(?:\$?\{[^{}]*\}|\[[^\[\]]*\]|\([^()]*\)|'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|[^,])+")
_BRACKETS = {"[": "]", "{": "}", "(": ")", "'": "'", '"': '"'}


def quote_value(value: str, *, sweep: bool = False) -> str:
    """Return `value` with quotes where Hydra's grammar needs them.

    Args:
        value: what follows `KEY=`.
        sweep: whether a comma separates the values of a sweep; without one, it is part of the value.
    """
    if _NESTED_INTERPOLATION.fullmatch(value) or (value and not value.strip()):  # such as a tab
        return f"'{value}'"
    value = quote_ranges(value)
    if can_be_read(value):
        return value
    if sweep:
        return ",".join(part if can_be_read(part) else _quote_unread(part) for part in _PARTS.findall(value))
    return _quote_unread(value)


def quote_ranges(value: str) -> str:
    """Return `value` with single quotes around each bare word that holds a range; quoted text is unchanged."""
    return _QUOTED_OR_WORD.sub(lambda match: match[0] if match[0][0] in "'\"" else f"'{match[0]}'", value)


def can_be_read(value: str) -> bool:
    """Return whether Hydra's grammar reads the value."""
    if _SURELY_READ.fullmatch(value):
        return True
    # Hydra is imported here, so that plain command lines with a misspelt name do not wait for it.
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_override(f"key={value}")
    except HydraException:
        return False
    return True


def spelling(key: str, value: str) -> str:
    """Return the argument as a shell needs it for a value that is one text."""
    return shlex.quote(f"{key}={quote_text(value, double=True)}")


def _quote_unread(value: str) -> str:
    """Return a text in quotes; a list or a mapping that cannot be read is left, so that its error is shown."""
    if value[:1] in _BRACKETS and value.endswith(_BRACKETS[value[0]]) and len(value) > 1:
        return value
    return quote_text(value)


def quote_text(value: str, *, double: bool = False) -> str:
    """Return a value in quotes, as one text."""
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(value, Quote.single if '"' in value or not double else Quote.double).with_quotes()
