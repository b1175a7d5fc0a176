"""Few functions stand between the command and the forward pass, and the documentation names each of them."""

import re
import traceback
from pathlib import Path

import pytest

from bionemo_core import cli

PROJECT = Path(__file__).resolve().parents[2]
CORE = PROJECT / "bionemo_core"
AT_MOST = 8
TINY = ["model.num_layers=1", "model.hidden_size=32", "model.num_attention_heads=2", "model.ffn_hidden_size=32"]


@pytest.fixture
def stacks(monkeypatch) -> list[list[str]]:
    """The functions of this project that stand on the stack when a network's forward pass begins."""
    from bionemo_core.nn.encoder import EncoderLM

    seen: list[list[str]] = []
    forward = EncoderLM.forward

    def recorded(network, *args):
        frames = [frame for frame in traceback.walk_stack(None)][::-1]
        ours = [
            f"{Path(frame.f_code.co_filename).relative_to(PROJECT)}:{frame.f_code.co_qualname}"
            for frame, _ in frames
            if CORE in Path(frame.f_code.co_filename).parents
        ]
        seen.append(ours)
        return forward(network, *args)

    monkeypatch.setattr(EncoderLM, "forward", recorded)
    return seen


def test_the_documented_functions_are_those_on_the_stack(stacks, tmp_path, monkeypatch):
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path))
    words = ["model=esm1nv_tiny", *TINY, "batch.micro_batch_size=1", "batch.num_workers=0", "trainer.max_steps=1"]
    assert cli.main([*words, "scheduler.warmup_steps=0"]) == 0
    stack = stacks[0]
    assert stack[0] == "bionemo_core/cli/__init__.py:main"
    assert len(stack) - 1 <= AT_MOST, "\n".join(stack)
    page = (PROJECT / "docs" / "training_step.md").read_text()
    documented = re.findall(r"^\d+\. `([\w/.]+)`, `([\w.]+)`", page, re.MULTILINE)
    assert [f"{file}:{function}" for file, function in documented][: len(stack)] == stack
