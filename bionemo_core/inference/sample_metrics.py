"""Metrics of sampled texts: how many are valid, unique, novel, and different from their input."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from bionemo_core.protocols import TextJudge

COLUMNS = (
    "input_id", "input", "sample_number", "beam", "sample", "valid", "canonical", "similarity", "identical", "novel",
)  # fmt: skip


class GeneratedText(NamedTuple):
    """One text that the model generated."""

    input_id: str
    input: str
    """Empty for a sample from the prior."""
    sample_number: int
    beam: int
    text: str


class SampleCounts:
    """Counts over all samples of a run; without a judge every text that is not empty is valid.

    - validity: valid samples, as a share of all samples;
    - uniqueness: different canonical forms, as a share of the valid samples;
    - non-identicality: samples whose canonical form differs from their input's, as a share of the valid samples;
    - novelty: samples whose canonical form is not among the known texts, as a share of the valid samples;
    - effective novelty: different canonical forms that are neither their input nor known, as a share of all samples.
    """

    def __init__(self, judge: TextJudge | None, known: set[str] | None) -> None:
        self.judge, self.known = judge, known
        self.samples = self.valid = self.identical = self.novel = 0
        self.seen: dict[str, tuple[GeneratedText, float | None]] = {}
        """Canonical forms by first appearance, each with that sample and its similarity to its input."""
        self._effective: set[str] = set()
        self._inputs: dict[str, str | None] = {}
        self._from_inputs = False

    def count(self, texts: Iterable[GeneratedText]) -> list[tuple[Any, ...]]:
        """Count these samples; return their rows of the table with the columns `COLUMNS`."""
        samples = list(texts)
        forms = [self._canonical(sample.text) for sample in samples]
        starts = [self._canonical_input(sample.input) for sample in samples]
        similarities = self._similarities(forms, starts)
        rows = []
        for sample, form, start, similarity in zip(samples, forms, starts, similarities, strict=True):
            self.samples += 1
            identical = form is not None and form == start
            novel = None if self.known is None or form is None else form not in self.known
            self._from_inputs |= bool(sample.input)
            if form is not None:
                self.valid += 1
                self.identical += identical
                self.novel += bool(novel)
                self.seen.setdefault(form, (sample, similarity))
                if not identical and novel is not False:
                    self._effective.add(form)
            same = identical if sample.input and form is not None else None
            rows.append((*sample[:4], sample.text, form is not None, form, similarity, same, novel))
        return rows

    def summary(self) -> dict[str, Any]:
        """Return the counts and shares; None for a metric that was not measured."""
        return {
            "samples": self.samples,
            "valid": self.valid,
            "unique": len(self.seen),
            "validity": _share(self.valid, self.samples) if self.judge else None,
            "uniqueness": _share(len(self.seen), self.valid),
            "non_identicality": _share(self.valid - self.identical, self.valid) if self._from_inputs else None,
            "novelty": _share(self.novel, self.valid) if self.known is not None else None,
            "effective_novelty": _share(len(self._effective), self.samples),
            "known": None if self.known is None else len(self.known),
        }

    def text(self, summary: dict[str, Any]) -> str:
        """Return a few aligned lines to print."""
        noun = self.judge.noun if self.judge else "text"
        rate = self.samples / max(summary["seconds"], 1e-9)
        lines = [("samples", f"{self.samples:,} in {summary['seconds']:,.1f} s, {rate:,.0f} per second")]
        lines += [
            (name.replace("_", "-"), f"{summary[name]:.4f}  {meaning}")
            for name, meaning in (
                ("validity", f"{self.valid:,} are {noun}s"),
                ("uniqueness", f"{len(self.seen):,} different ones"),
                ("non_identicality", "of the valid are not their input"),
                ("novelty", "of the valid are not known"),
                ("effective_novelty", f"of all are {self._effective_conditions}"),
            )
            if summary[name] is not None and not math.isnan(summary[name])
        ]
        return "\n".join(f"{name:>17}  {line}" for name, line in lines)

    @property
    def _effective_conditions(self) -> str:
        also = ["not their input"] if self._from_inputs else []
        return ", ".join(["valid", "different", *also, *(["not known"] if self.known is not None else [])])

    def draw(self, path: Path, number: int) -> bool:
        """Draw the first `number` different texts, each after its input; return whether there is a picture.

        Raises:
            StorageError: the picture cannot be written.
        """
        chosen = list(self.seen.items())[:number]
        if self.judge is None or not chosen:
            return False
        texts, captions, drawn = [], [], ""
        for form, (sample, similarity) in chosen:
            if sample.input != drawn:
                drawn = sample.input
                texts.append(sample.input)
                captions.append(f"input {_shortened(sample.input_id)}")
            texts.append(form)
            captions.append(
                f"sample {sample.sample_number + 1}" if similarity is None else f"similarity {similarity:.2f}"
            )
        self.judge.draw_grid(texts, captions, str(path))
        return path.is_file()

    def _canonical(self, text: str) -> str | None:
        return (text or None) if self.judge is None else self.judge.canonical(text)

    def _canonical_input(self, text: str) -> str | None:
        if text not in self._inputs:
            if len(self._inputs) > 100_000:
                self._inputs.clear()
            self._inputs[text] = self._canonical(text) if text else None
        return self._inputs[text]

    def _similarities(self, forms: list[str | None], starts: list[str | None]) -> list[float | None]:
        similarities: list[float | None] = [None] * len(forms)
        pairs = [(i, form, start) for i, (form, start) in enumerate(zip(forms, starts, strict=True)) if form and start]
        if self.judge is None or not pairs:
            return similarities
        values = self.judge.similarity([form for _, form, _ in pairs], [start for _, _, start in pairs])
        for (i, _, _), value in zip(pairs, values, strict=True):
            similarities[i] = float(value)
        return similarities


def _shortened(name: str, most: int = 20) -> str:
    return name if len(name) <= most else f"{name[: most - 3]}..."


def _share(part: int, total: int) -> float:
    return part / total if total else math.nan
