"""Reading a table of variants and their wild type for `task=predict`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bionemo_core.data.readers import CsvSource, FastaSource
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.inference.scoring import Mutation, read_variant
from bionemo_core.protocols import Tokenizer
from bionemo_core.tasks.settings import Predict

ON_INVALID = ("error", "skip")
_EXAMPLES = 3


@dataclass(frozen=True)
class Variants:
    """The variants that can be scored, in the order of the file, and why others cannot."""

    texts: list[str]
    mutations: list[list[Mutation]]
    problems: list[str]
    """One text for each row that was left out: file, line and reason."""

    @property
    def left_out(self) -> str:
        """The rows that were left out, the first few with their reasons; empty if there are none."""
        if not self.problems:
            return ""
        shown = "\n".join(f"  {problem}" for problem in self.problems[:_EXAMPLES])
        more = len(self.problems) - _EXAMPLES
        return f"{len(self.problems):,} variants left out:\n{shown}" + (f"\n  and {more:,} more" if more > 0 else "")


def read_variants(task: Predict, wild_type: str, tokenizer: Tokenizer) -> Variants:
    """Read the column `task.variant_column` of `task.variants`.

    Raises:
        ConfigError: `task.on_invalid` is neither error nor skip.
        DataError: the file cannot be read, no row can be scored, or `task.on_invalid=error` and a row cannot be.
    """
    if task.on_invalid not in ON_INVALID:
        raise ConfigError(
            f"task.on_invalid: got {task.on_invalid!r}; a variant can be scored or not, so expected one of "
            f"{', '.join(ON_INVALID)}."
        )
    source = CsvSource(Path(str(task.variants)).expanduser(), column=task.variant_column)
    found = Variants([], [], [])
    for record in source.records(source.paths[0]):
        text = record.sequence.decode("latin-1").strip()
        try:
            if record.problem:
                raise DataError(record.problem)
            mutations = read_variant(text, wild_type, task.first_position)
            _check_letters(text, mutations, tokenizer)
        except DataError as error:
            found.problems.append(f"{task.variants}:{record.line}: {error}")
        else:
            found.texts.append(text)
            found.mutations.append(mutations)
    if found.problems and (task.on_invalid == "error" or not found.texts):
        more = len(found.problems) - 1
        others = f" {more:,} more rows cannot be scored." if more else ""
        advice = " Leave such rows out with task.on_invalid=skip." if found.texts else ""
        raise DataError(f"{found.problems[0]}{others}{advice}")
    return found


def read_wild_type(given: str) -> str:
    """Return the wild type, in upper case: the first record of the FASTA file `given`, or `given` itself.

    Raises:
        ConfigError: it is neither a file nor a sequence.
        DataError: the file has no records.
    """
    path = Path(given).expanduser()
    if not path.is_file():
        if not given.isalpha():
            raise ConfigError(f"task.wild_type={given[:60]}: expected a file or a sequence of residues.")
        return given.upper()
    record = next(iter(FastaSource(path).records(path)), None)
    if record is None:
        raise DataError(f"fasta: {path}: the file has no records.")
    return b"".join(record.sequence.split()).decode("latin-1").upper()


def _check_letters(text: str, mutations: list[Mutation], tokenizer: Tokenizer) -> None:
    for mutation in mutations:
        if int(tokenizer.encode(mutation.mutant)[0]) == tokenizer.unk_id:
            raise DataError(f"variant {text!r}: the model does not know the residue {mutation.mutant!r}.")
