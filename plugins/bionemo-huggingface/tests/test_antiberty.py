"""AntiBERTy's published weights, where its package is installed."""

import runpy
from pathlib import Path

import pytest


def test_embeddings_of_antiberty():
    pytest.importorskip("antiberty")
    example = Path(__file__).parents[3] / "examples/antiberty_embeddings.py"
    assert runpy.run_path(str(example))["compare"]() < 1e-5
