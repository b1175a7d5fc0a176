"""Applies the alias table to the command line and to a user's YAML before a configuration is composed."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bionemo_core.config.v1.aliases import CHOICE_VALUES, Alias, Fate, alias_of, new_home
from bionemo_core.config.v1.range_quoting import quote_value
from bionemo_core.errors import ConfigError

_OVERRIDE = re.compile(r"(?P<prefix>\+\+|\+)?(?P<key>[A-Za-z_][\w./@-]*)=(?P<value>.*)", re.DOTALL)
_REFERENCE = re.compile(r"\$\{([A-Za-z_][\w.]*)\}")
_LOGGER_GROUP = "logger"
SWEEP_FLAGS = ("-m", "--multirun")


@dataclass
class Effects:
    """What v1 keys cause besides setting a value: choices, loggers, notes."""

    choices: dict[str, str] = field(default_factory=dict)
    implied: dict[str, str] = field(default_factory=dict)
    decided: dict[str, str] = field(default_factory=dict)
    loggers: dict[str, bool] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def components(self) -> dict[str, str]:
        """The component of each group, where several keys speak of one the most specific."""
        return {**self.implied, **self.choices, **self.decided}

    def note(self, text: str) -> None:
        """Add a note, once."""
        if text not in self.notes:
            self.notes.append(text)


def rewrite_command_line(
    arguments: Iterable[str], own_keys: frozenset[str] = frozenset()
) -> tuple[list[str], list[str]]:
    """Return the arguments with today's keys and with quotes where Hydra needs them, and notes to show.

    Rewriting twice changes nothing, so another process may repeat the command line.

    Raises:
        ConfigError: a v1 key asks for something that is not supported.
    """
    effects = Effects()
    rewritten: list[str] = []
    arguments = list(arguments)
    sweep = any(argument in SWEEP_FLAGS for argument in arguments)
    for argument in arguments:
        match = _OVERRIDE.fullmatch(argument)
        if match is None or argument.startswith("hydra."):
            rewritten.append(argument)
            continue
        prefix, key, value = match["prefix"] or "", match["key"], quote_value(match["value"], sweep=sweep)
        if key in CHOICE_VALUES:
            value = _map_words(value, CHOICE_VALUES[key])
        moved = _rewrite_key(key, value, own_keys, effects)
        if moved is not None:
            new, new_value = moved
            rewritten.append(f"{prefix}{new}={new_value}")
    chosen = {argument.partition("=")[0].lstrip("+") for argument in rewritten}
    for group, choice in effects.components.items():
        if group not in chosen:
            rewritten.append(f"{group}={choice}")
    return _set_loggers(rewritten, effects.loggers), effects.notes


def rewrite_mapping(
    content: Mapping[str, Any], own_keys: frozenset[str] = frozenset()
) -> tuple[dict[str, Any], list[dict[str, Any]], list[str]]:
    """Return a file's content with today's keys, entries for its defaults list, and notes.

    Raises:
        ConfigError: a v1 key asks for something that is not supported.
    """
    effects = Effects()
    result: dict[str, Any] = {}
    for key, value in leaves(content):
        moved = _rewrite_key(key, value, own_keys, effects)
        if moved is not None and moved[1] != f"${{{moved[0]}}}":
            _insert(result, moved[0], moved[1])
    loggers = result.get("logger")
    if isinstance(loggers, dict):
        for name, wanted in effects.loggers.items():
            if not wanted:
                loggers.pop(name, None)
    entries: list[dict[str, Any]] = [{f"override /{group}": choice} for group, choice in effects.components.items()]
    wanted_loggers = [name for name, wanted in effects.loggers.items() if wanted]
    if wanted_loggers:
        entries.append({"override /logger": ["csv", *wanted_loggers]})
    return result, entries, effects.notes


def _rewrite_key(key: str, value: Any, own_keys: frozenset[str], effects: Effects) -> tuple[str, Any] | None:
    """Return the new key and value, or None if the key sets no value; other effects go into `effects`."""
    typed = key
    value = _rewrite_references(value)
    while (found := alias_of(key, own_keys)) is not None:
        alias, new = found
        word = _word(value)
        if alias.fate in (Fate.IGNORED, Fate.REFUSED):
            _note_or_refuse(alias, typed, word, effects)
            return None
        if alias.fate is Fate.CHOICE:
            effects.choices[alias.new] = _map_words(str(value), alias.values)
            return None
        if alias.fate is Fate.SWITCH:
            effects.loggers[alias.new] = word == "true"
            return None
        value = _map_words(value, alias.values) if alias.values else value
        if alias.implies:
            group, _, choice = alias.implies.partition("=")
            if group == _LOGGER_GROUP:
                effects.loggers.setdefault(choice, True)
            else:
                (effects.decided if alias.decides else effects.implied)[group] = choice
        if new == key:
            break
        key = new
    if key == "trainer.devices" and _word(value).startswith("["):
        raise ConfigError(
            f"{typed}: got {value}, expected a number of devices. Choose devices with the environment variable "
            "CUDA_VISIBLE_DEVICES."
        )
    return key, value


def _note_or_refuse(alias: Alias, typed: str, word: str, effects: Effects) -> None:
    if word in alias.harmless:
        return
    if alias.fate is Fate.REFUSED:
        raise ConfigError(f"{typed}: got {word}. This v1 setting is not supported: {alias.note}. Leave it out.")
    effects.note(f"{typed} is ignored: {alias.note}.")


def _map_words(value: Any, words: Mapping[str, str]) -> Any:
    if isinstance(value, str) and "," in value and not value.startswith(("[", "'", '"')):
        return ",".join(words.get(part.strip().lower(), part.strip()) for part in value.split(","))
    return words.get(_word(value), value)


def _word(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).strip().strip("'\"").lower()


def _rewrite_references(value: Any) -> Any:
    """Return `value` with today's keys in its references: `${batch.micro_batch_size}`."""
    if isinstance(value, list):
        return [_rewrite_references(one) for one in value]
    if not isinstance(value, str):
        return value
    return _REFERENCE.sub(lambda match: f"${{{new_home(match[1])}}}", value)


def _set_loggers(arguments: list[str], loggers: Mapping[str, bool]) -> list[str]:
    if not loggers:
        return arguments
    kept = [
        argument
        for argument in arguments
        if not any(not on and argument.lstrip("+").startswith(f"logger.{name}.") for name, on in loggers.items())
    ]
    chosen = ["csv"]
    for argument in list(kept):
        key, _, value = argument.partition("=")
        if key == _LOGGER_GROUP:
            chosen = [name.strip() for name in value.strip("[]").split(",") if name.strip() and name != "null"]
            kept.remove(argument)
    chosen = [name for name in chosen if loggers.get(name, True)]
    chosen += [name for name, on in loggers.items() if on and name not in chosen]
    return [*kept, f"logger=[{','.join(chosen)}]"]


def leaves(content: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Yield the dotted keys and values of a nested mapping."""
    for key, value in content.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{dotted}.")
        else:
            yield dotted, value


def _insert(target: dict[str, Any], key: str, value: Any) -> None:
    *folders, last = key.split(".")
    for folder in folders:
        inner = target.setdefault(folder, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{key}: {folder!r} already has a plain value, so it cannot hold the key {last!r}")
        target = inner
    target[last] = value
