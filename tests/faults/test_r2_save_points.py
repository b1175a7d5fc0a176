"""R2: killed at any point of the save protocol, a run loses at most one interval, and its losses do not change."""

import signal

import pytest
from matrix import row
from runs import Home, assert_same_metrics

from bionemo_core.checkpoint.faults import SAVE_POINTS
from bionemo_core.checkpoint.load import open_newest_valid

pytestmark = pytest.mark.faults

INTERVAL = 5
SAVES = (1, 2, 3)
"""The first, a middle and the last save of the run."""
SHORT = (f"trainer.max_steps={len(SAVES) * INTERVAL}", f"checkpoint.every_n_steps={INTERVAL}")


def test_r2_killed_while_saving(home: Home) -> None:
    reference = home.finish("name=saving", *SHORT).folder
    matrix = row("R2", quick=5, subset=2 * len(SAVE_POINTS), full=2 * len(SAVE_POINTS) * len(SAVES))
    for case in range(matrix.n):
        # In steps of five, so that the first few cases are spread over the whole save.
        point = SAVE_POINTS[(5 * case + 2) % len(SAVE_POINTS)]
        turn = case // len(SAVE_POINTS)
        which = SAVES[1 if matrix.n <= 2 * len(SAVE_POINTS) else turn // 2]
        in_background = (case + turn) % 2 == 0  # the quick cases have both; two turns have each point of both
        with matrix.case(f"{point} of save {which}, {'in the background' if in_background else 'at once'}"):
            name = f"name=saving-{case}"
            run = home.start(
                name, *SHORT, f"checkpoint.async_save={in_background}", BIONEMO_FAULT_POINT=f"{point}:{which}"
            )
            assert run.wait() == -signal.SIGKILL, run.output()
            assert f"fault point {point} reached" in run.output()
            if which > 1:
                reader, _ = open_newest_valid(run.folder / "checkpoints")
                assert reader.step >= (which - 1) * INTERVAL
            assert_same_metrics(home.finish(name, *SHORT, "resume=auto").folder, reference)
    matrix.check()
