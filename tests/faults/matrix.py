"""The rows of the fault matrix: how many cases, which passed, and a JSON file of it.

A few cases of each row run with every change; `BIONEMO_FAULTS=subset` runs more, and `BIONEMO_FAULTS=full` its full N.
`BIONEMO_FAULTS_C1=5000` sets the N of one row, `BIONEMO_FAULTS_SEED` the seed of all, and `BIONEMO_FAULTS_REPORT` names
the file that the rows are written to.
"""

import contextlib
import json
import os
import random
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest


@dataclass
class Row:
    """One row of the matrix while it runs."""

    id: str
    n: int
    seed: int
    passed: int = 0
    failures: list[str] = field(default_factory=list)

    def draw(self, case: int) -> random.Random:
        """The randomness of one case; the same whatever the N."""
        return random.Random(f"{self.id}/{self.seed}/{case}")

    @contextlib.contextmanager
    def case(self, name: str) -> Iterator[None]:
        """Counts one case: passed if the block raises nothing."""
        try:
            yield
        except Exception:
            self.failures.append(f"{name}: {traceback.format_exc(limit=-3)}")
        else:
            self.passed += 1

    def check(self) -> None:
        """Fails the test if a case failed or did not run."""
        report = os.environ.get("BIONEMO_FAULTS_REPORT")
        if report:
            path = Path(report)
            rows = json.loads(path.read_text()) if path.exists() else []
            rows = [row for row in rows if row["id"] != self.id]
            rows.append({"id": self.id, "N": self.n, "passed": self.passed, "seed": self.seed})
            path.write_text(json.dumps(rows, indent=1) + "\n")
        if self.passed != self.n:
            pytest.fail(
                f"{self.id}: {self.passed} of {self.n} passed, seed {self.seed}\n" + "\n".join(self.failures[:5])
            )


def row(identity: str, *, subset: int, full: int, quick: int | None = None) -> Row:
    """A new row with the N and seed that the environment asks for; without `quick`, every change runs the subset."""
    sizes = {"full": full, "subset": subset, "quick": subset if quick is None else quick}
    n = sizes[os.environ.get("BIONEMO_FAULTS", "quick")]
    n = int(os.environ.get(f"BIONEMO_FAULTS_{identity}", n))
    return Row(identity, n, int(os.environ.get("BIONEMO_FAULTS_SEED", "0")))
