"""A user's YAML, which may use v1's keys: the folder of `--config-dir` becomes a config source of its own."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from bionemo_core.config.v1.rewriting import leaves, rewrite_mapping
from bionemo_core.config.v1.yaml_reading import read_yaml, refuse_hydra_keys
from bionemo_core.errors import ConfigError

SCHEME = "user"
V1_BASES = ("base_config", "base_infer_config", "pretrain_small")
"""Base files that v1's configs include; the defaults of the model's plugin replace them."""

_logger = logging.getLogger("bionemo_core.config")


_HEADER = re.compile(r"\s*#\s*@(\w+)\s+(\S+)\s*")


class UserYaml(ConfigSource):
    """A folder of YAML files, whose keys may be those of v1."""

    own_keys: ClassVar[frozenset[str]] = frozenset()
    keys_read: ClassVar[dict[Path, list[str]]] = {}
    """The dotted keys and groups that each file which was read sets."""

    @staticmethod
    def scheme() -> str:
        """Return the scheme of the folder's address."""
        return SCHEME

    def load_config(self, config_path: str) -> ConfigResult:
        """Return one file with today's keys.

        Raises:
            ConfigLoadError: the file does not exist.
            ConfigError: it cannot be read, sets keys of Hydra, or a v1 key is not supported or of another group.
        """
        path = self._file(config_path)
        if not path.is_file():
            raise ConfigLoadError(f"{path}: the file does not exist")
        text, plain = read_yaml(path)
        group = path.relative_to(self.path).parent.as_posix()
        header = {"package": None, **_header(text)}
        if group == "experiment" and not header["package"]:
            header["package"] = "_global_"
        everywhere = header["package"] == "_global_" or group == "."
        package = header["package"] if header["package"] not in (None, "_global_") else ""
        refuse_hydra_keys(plain, package if package or everywhere else group.replace("/", "."), path)
        rewritten = self._rewrite(plain, "" if everywhere else group.replace("/", "."), str(path))
        place = package if package or everywhere else group.replace("/", ".")
        self.keys_read[path] = list(_keys_of(rewritten, f"{place}." if place else ""))
        return ConfigResult(self.provider, f"{SCHEME}://{self.path}", OmegaConf.create(rewritten), header)

    def available(self) -> bool:
        """Return whether the folder exists."""
        return self.is_group("")

    def is_group(self, config_path: str) -> bool:
        """Return whether the path is a folder."""
        return (Path(self.path) / config_path).is_dir()

    def is_config(self, config_path: str) -> bool:
        """Return whether the path, with `.yaml` added if needed, is a file."""
        return self._file(config_path).is_file()

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """Return the names of the files, the folders, or both in a folder."""
        entries = sorted((Path(self.path) / config_path).iterdir())
        groups = {entry.name for entry in entries if entry.is_dir() and entry.name != "__pycache__"}
        configs = {entry.stem for entry in entries if entry.suffix == ".yaml" and entry.is_file()}
        wanted = {ObjectType.GROUP: groups, ObjectType.CONFIG: configs}
        return sorted(groups | configs if results_filter is None else wanted[results_filter])

    def _file(self, config_path: str) -> Path:
        name = config_path if config_path.endswith(".yaml") else f"{config_path}.yaml"
        return Path(self.path) / name

    def _rewrite(self, content: dict[str, Any], package: str, where: str) -> dict[str, Any]:
        defaults = content.pop("defaults", None)
        try:
            if package:
                content, entries, notes = rewrite_mapping({package: content}, self.own_keys)
                elsewhere = [key for key in content if key != package]
                if elsewhere or entries:
                    raise ConfigError(
                        f"some keys belong to {', '.join(elsewhere) or 'other groups'}, not to {package}. "
                        "Put them into a file in experiment/ or on the command line."
                    )
                content = content.get(package, {})
            else:
                content, entries, notes = rewrite_mapping(content, self.own_keys)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error
        for note in notes:
            _logger.warning("%s: %s", where, note)
        listed = _drop_v1_bases(defaults, where)
        if listed or entries:
            content["defaults"] = _merge_defaults(listed, entries)
        return content


def use_folders(folders: list[Path], own_keys: frozenset[str]) -> None:
    """Make Hydra look for configs in `folders` before the core's own.

    Raises:
        ConfigError: a folder does not exist.
    """
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(
                f"--config-dir: {folder} is not a folder. Give the folder that holds experiment/ or model/."
            )
    UserYaml.own_keys = own_keys
    UserYaml.keys_read.clear()
    _UserFolders.folders = tuple(folder.absolute() for folder in folders)
    Plugins.instance().register(UserYaml)
    Plugins.instance().register(_UserFolders)


class _UserFolders(SearchPathPlugin):
    """A plugin of Hydra that puts the user's folders on the search path."""

    folders: ClassVar[tuple[Path, ...]] = ()

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add each folder to the search path."""
        for folder in reversed(self.folders):
            search_path.append(provider="command-line", path=f"{SCHEME}://{folder}", anchor=None)


def _keys_of(content: dict[str, Any], prefix: str) -> Iterator[str]:
    """Yield the dotted keys of a file, and the groups that its defaults list overrides."""
    for entry in _overrides_of(content.get("defaults", [])):
        yield from (str(key).removeprefix("override ").strip("/") for key in entry)
    yield from (key for key, _ in leaves({key: value for key, value in content.items() if key != "defaults"}, prefix))


def _header(text: str) -> dict[str, str]:
    """Return the settings in the comments at the top of a file, such as `# @package _global_`."""
    header: dict[str, str] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        found = _HEADER.fullmatch(line)
        if found is None:
            break
        header[found[1]] = found[2]
    return header


def _drop_v1_bases(defaults: Any, where: str) -> list[Any]:
    if defaults is None:
        return []
    if not isinstance(defaults, list):
        raise ConfigError(f"{where}: defaults is {defaults!r}, expected a list")
    kept = [entry for entry in defaults if entry not in V1_BASES]
    for entry in defaults:
        if entry in V1_BASES:
            _logger.warning("%s: %s of v1 is ignored: the model's plugin has its defaults.", where, entry)
    return kept


def _merge_defaults(listed: list[Any], entries: list[dict[str, Any]]) -> list[Any]:
    written = {key for entry in listed if isinstance(entry, dict) for key in entry}
    added = [entry for entry in entries if not written & set(entry)]
    listed = listed if "_self_" in listed else [*_others_of(listed), "_self_", *_overrides_of(listed)]
    return [*listed, *added]


def _overrides_of(listed: list[Any]) -> list[Any]:
    """Return the entries of a defaults list that override a choice; Hydra needs them at the end."""
    return [
        entry for entry in listed if isinstance(entry, dict) and any(str(key).startswith("override ") for key in entry)
    ]


def _others_of(listed: list[Any]) -> list[Any]:
    """Return the other entries, in their order."""
    overrides = _overrides_of(listed)
    return [entry for entry in listed if entry not in overrides]
