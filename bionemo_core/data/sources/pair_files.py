"""The reader and the filter that the keys of `data=pairs` describe."""

from dataclasses import dataclass, replace
from pathlib import Path

from bionemo_core.data.readers import Source
from bionemo_core.data.readers.key_names import PAIR_KEYS, REACTION_KEYS, KeyNames
from bionemo_core.data.readers.pair_source import PairSource
from bionemo_core.data.readers.tables import read_column_names
from bionemo_core.data.sources.input_files import FileOptions
from bionemo_core.data.sources.source_keys import PairRules, PairTables
from bionemo_core.data.splits.labels import TABLES
from bionemo_core.data.store.pair_filter import BACKWARD, PairFilter, ReactionForm
from bionemo_core.data.store.text_filter import filter_for
from bionemo_core.errors import ConfigError
from bionemo_core.protocols import Tokenizer

_ON_INVALID = ("skip", "error", "unk")
_ON_DUPLICATE_ID = ("drop", "error", "keep")


@dataclass(frozen=True)
class PairFiles(FileOptions):
    """The options for reading tables of pairs, whose `column` is that of the sources, or of reactions."""

    target_column: str | None = None
    """The column of the targets; None: `column` holds reactions."""
    target_col: int | None = None
    """The number of that column, if it is chosen by number; `data_col` is that of the sources."""

    @property
    def keys(self) -> KeyNames:
        """The names of the keys in messages."""
        if self.target_column is None:
            return REACTION_KEYS
        return PAIR_KEYS._replace(further={self.target_column: "data.target_column"})

    def source(self, paths: list[Path], columns: tuple[str, ...] = ()) -> Source:
        """Return the reader of some files.

        Raises:
            ConfigError: the format has no columns, or an option cannot be used.
        """
        name = self.detect_format(paths)
        if name not in TABLES:
            raise ConfigError(
                f"data.format: {name} files have no columns for pairs, expected {', '.join(TABLES)}. Name other files, "
                "or their format with data.format."
            )
        if self.data_col is not None or self.target_col is not None:
            return self._by_name(paths[0], name).source(paths, columns)
        if self.target_column is None:
            return super().source(paths, columns)
        return PairSource(super().source(paths, (self.target_column, *columns)))

    def _by_name(self, path: Path, kind: str) -> "PairFiles":
        """Return the same with the names that a table's header gives to the columns that are chosen by number.

        Raises:
            ConfigError: the header has fewer columns.
            DataError: the table cannot be read.
        """
        names = read_column_names(path, kind, self.data_sep, self.header_lines or 1)

        def name_of(number: int | None, key: str, own: str | None) -> str | None:
            if number is None:
                return own
            if number >= len(names):
                raise ConfigError(
                    f"data.{key}: there is no column {number}, counted from 0, in {path}, which has "
                    f"{', '.join(names) or 'nothing'}."
                )
            return names[number]

        return replace(
            self,
            column=name_of(self.data_col, "source_col", self.column),
            target_column=name_of(self.target_col, "target_col", self.target_column),
            data_col=None,
            target_col=None,
        )


def pair_files(tables: PairTables, *, ids_elsewhere: bool = False) -> PairFiles:
    """Return how to read the tables.

    Raises:
        ConfigError: keys contradict each other.
    """
    _check_columns(tables)
    reactions = tables.reaction_column
    return PairFiles(
        format=tables.format,
        column=reactions or tables.source_column or "source",
        id_column=tables.id_column,
        header_lines=tables.header_lines,
        data_sep=tables.data_sep,
        ids_elsewhere=ids_elsewhere,
        target_column=None if reactions else tables.target_column or "target",
        data_col=tables.source_col,
        target_col=tables.target_col,
    )


def pair_filter(tables: PairTables, rules: PairRules, tokenizer: Tokenizer) -> PairFilter:
    """Return the filter of the pairs.

    Raises:
        ConfigError: a key has an unknown value.
    """
    on_duplicate_id = rules.on_duplicate_id or "drop"
    for key, value, choices in (
        ("on_invalid", rules.on_invalid, _ON_INVALID),
        ("on_duplicate_id", on_duplicate_id, _ON_DUPLICATE_ID),
    ):
        if value not in choices:
            raise ConfigError(f"data.{key}: {value!r}, expected one of {', '.join(choices)}.")
    form = ReactionForm(tables.direction or BACKWARD, tables.reagents) if tables.reaction_column else None
    text = filter_for(tokenizer, rules.on_invalid, canonicalize=rules.canonicalize, key="data.on_invalid")
    return PairFilter(tokenizer, text, rules.on_invalid, form, rules.max_length, rules.deduplicate, on_duplicate_id)


def _check_columns(tables: PairTables) -> None:
    """Check that the columns are those of pairs or that of reactions.

    Raises:
        ConfigError: keys of both are given, or one that has no meaning.
    """
    for side in ("source", "target"):
        if getattr(tables, f"{side}_column") is not None and getattr(tables, f"{side}_col") is not None:
            raise ConfigError(f"data.{side}_column and data.{side}_col are both given. Keep one of them.")
    if tables.reaction_column is None:
        for key in ("direction", "reagents"):
            if getattr(tables, key):
                raise ConfigError(
                    f"data.{key}: applies to reactions. Name their column with data.reaction_column, or leave it out."
                )
        return
    for key in ("source_column", "target_column", "source_col", "target_col"):
        if getattr(tables, key) is not None:
            raise ConfigError(f"data.{key}: data.reaction_column has both sides already. Keep one of the two ways.")
