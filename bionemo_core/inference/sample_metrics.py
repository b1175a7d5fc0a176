"""How many of the texts that a model wrote are valid, unique, novel, and not what they began from."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from bionemo_core.protocols import TextJudge

COLUMNS = (
    "input_id", "input", "sample_number", "beam", "sample", "valid", "canonical", "similarity", "identical", "novel",
)  # fmt: skip


class Written(NamedTuple):
    """One text that the model wrote."""

    input_id: str
    input: str
    """Empty for one from the prior."""
    sample_number: int
    beam: int
    text: str


class SampleCounts:
    """Counts over all samples of a run; without a judge every text that is not empty is valid.

    - validity: valid samples of all;
    - uniqueness: different canonical forms of the valid ones;
    - non-identicality: valid ones whose canonical form is not that of their input, of the valid;
    - novelty: valid ones whose canonical form is not among the known texts, of the valid;
    - effective novelty: different canonical forms that are neither their input nor known, of all samples.
    """

    def __init__(self, judge: TextJudge | None, known: set[str] | None) -> None:
        self.judge, self.known = judge, known
        self.samples = self.valid = self.identical = self.not_known = 0
        self.seen: dict[str, str] = {}
        """Each canonical form, in the order of its first sample, with the caption to draw it under."""
        self._effective: set[str] = set()
        self._inputs: dict[str, str | None] = {}
        self._from_inputs = False

    def judged(self, written: Iterable[Written]) -> list[tuple[Any, ...]]:
        """Count these samples; their rows of the table, under `COLUMNS`."""
        samples = list(written)
        forms = [self._canonical(one.text) for one in samples]
        starts = [self._start(one.input) for one in samples]
        likeness = self._similarity(forms, starts)
        rows = []
        for one, form, start, like in zip(samples, forms, starts, likeness, strict=True):
            self.samples += 1
            identical = form is not None and form == start
            novel = None if self.known is None or form is None else form not in self.known
            self._from_inputs |= bool(one.input)
            if form is not None:
                self.valid += 1
                self.identical += identical
                self.not_known += bool(novel)
                self.seen.setdefault(form, one.input_id if like is None else f"{one.input_id}  {like:.2f}")
                if not identical and novel is not False:
                    self._effective.add(form)
            same = identical if one.input and form is not None else None
            rows.append((*one[:4], one.text, form is not None, form, like, same, novel))
        return rows

    def summary(self) -> dict[str, Any]:
        """Return the counts and shares; null for what was not measured."""
        return {
            "samples": self.samples,
            "valid": self.valid,
            "unique": len(self.seen),
            "validity": _share(self.valid, self.samples) if self.judge else None,
            "uniqueness": _share(len(self.seen), self.valid),
            "non_identicality": _share(self.valid - self.identical, self.valid) if self._from_inputs else None,
            "novelty": _share(self.not_known, self.valid) if self.known is not None else None,
            "effective_novelty": _share(len(self._effective), self.samples),
            "known": None if self.known is None else len(self.known),
        }

    def text(self, summary: dict[str, Any]) -> str:
        """Return the summary as aligned lines to print."""
        noun = self.judge.noun if self.judge else "text"
        rate = self.samples / max(summary["seconds"], 1e-9)
        lines = [("samples", f"{self.samples:,} in {summary['seconds']:,.1f} s, {rate:,.0f} a second")]
        lines += [
            (name.replace("_", "-"), f"{summary[name]:.4f}  {meaning}")
            for name, meaning in (
                ("validity", f"{self.valid:,} are {noun}s"),
                ("uniqueness", f"{len(self.seen):,} different ones"),
                ("non_identicality", "of the valid are not their input"),
                ("novelty", "of the valid are not known"),
                ("effective_novelty", f"of all are {self._effective_ones}"),
            )
            if summary[name] is not None and not math.isnan(summary[name])
        ]
        return "\n".join(f"{name:>17}  {what}" for name, what in lines)

    @property
    def _effective_ones(self) -> str:
        also = ["not their input"] if self._from_inputs else []
        return ", ".join(["valid", "different", *also, *(["not known"] if self.known is not None else [])])

    def draw(self, path: Path, number: int) -> bool:
        """Draw the first different texts, if the judge can; whether there is a picture.

        Raises:
            StorageError: it cannot be written.
        """
        chosen = list(self.seen.items())[:number]
        if self.judge is None or not chosen:
            return False
        self.judge.draw_grid([text for text, _ in chosen], [caption for _, caption in chosen], str(path))
        return path.is_file()

    def _canonical(self, text: str) -> str | None:
        return (text or None) if self.judge is None else self.judge.canonical(text)

    def _start(self, text: str) -> str | None:
        if text not in self._inputs:
            if len(self._inputs) > 100_000:
                self._inputs.clear()
            self._inputs[text] = self._canonical(text) if text else None
        return self._inputs[text]

    def _similarity(self, forms: list[str | None], starts: list[str | None]) -> list[float | None]:
        likeness: list[float | None] = [None] * len(forms)
        both = [(i, form, start) for i, (form, start) in enumerate(zip(forms, starts, strict=True)) if form and start]
        if self.judge is None or not both:
            return likeness
        for (i, _, _), value in zip(
            both, self.judge.similarity([b[1] for b in both], [b[2] for b in both]), strict=True
        ):
            likeness[i] = float(value)
        return likeness


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
