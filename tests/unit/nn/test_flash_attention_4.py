"""The code around the package `flash-attn-4`, with a stand-in for its kernels, which need a GPU."""

import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from packaging.requirements import Requirement
from torch import Tensor

from bionemo_core.nn.kernels import flash_attention_4 as module

HEADS, WIDTH = 2, 8


class Kernels:
    """The two functions of the package, computed sequence by sequence; remembers its options."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def _flash_attn_fwd(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> tuple[Tensor, ...]:
        self.asked.append(options)
        out, sums = torch.zeros_like(query), torch.full((query.shape[1], len(query)), -torch.inf)
        for places, q, k, v in _sequences(query, key, value, options):
            scores = _scores(q, k, options)
            out[places] = (scores.softmax(-1) @ v.transpose(0, 1)).transpose(0, 1)
            sums[:, places] = scores.logsumexp(-1)
        return out, sums, None, None, None

    def _flash_attn_bwd(
        self, query: Tensor, key: Tensor, value: Tensor, out: Tensor, d_out: Tensor, sums: Tensor, **options: Any
    ) -> tuple[Tensor, ...]:
        self.asked.append(options)
        grads = torch.zeros_like(query), torch.zeros_like(key), torch.zeros_like(value)
        bounds = options["cu_seqlens_k"].tolist()
        for n, (places, q, k, v) in enumerate(_sequences(query, key, value, options)):
            keys = slice(bounds[n], bounds[n + 1])
            shares = (_scores(q, k, options) - sums[:, places, None]).exp()
            d_q = d_out[places].transpose(0, 1)
            d_shares = d_q @ v.transpose(0, 1).mT - (d_q * out[places].transpose(0, 1)).sum(-1, keepdim=True)
            d_scores = shares * d_shares * options["softmax_scale"]
            grads[0][places] = (d_scores @ k.transpose(0, 1)).transpose(0, 1)
            grads[1][keys] = (d_scores.mT @ q.transpose(0, 1)).transpose(0, 1)
            grads[2][keys] = (shares.mT @ d_q).transpose(0, 1)
        return grads


def _sequences(query: Tensor, key: Tensor, value: Tensor, options: dict[str, Any]) -> Any:
    queries, keys = options["cu_seqlens_q"].tolist(), options["cu_seqlens_k"].tolist()
    for first, last, start, stop in zip(queries, queries[1:], keys, keys[1:], strict=False):
        assert last - first <= options["max_seqlen_q"] and stop - start <= options["max_seqlen_k"]
        yield slice(first, last), query[first:last], key[start:stop], value[start:stop]


def _scores(q: Tensor, k: Tensor, options: dict[str, Any]) -> Tensor:
    scores = q.transpose(0, 1) @ k.transpose(0, 1).mT * options["softmax_scale"]
    if options["causal"]:
        scores = scores.masked_fill(torch.ones(scores.shape[1:], dtype=torch.bool).triu(1), -torch.inf)
    return scores


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Kernels:
    found = Kernels()
    monkeypatch.setattr(module, "_kernels", lambda: found)
    return found


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(("causal", "scale"), [(False, None), (True, 0.3)])
def test_output_and_gradients_are_those_of_each_sequence(
    kernels: Kernels, causal: bool, scale: float | None, compiled: bool
) -> None:
    torch.manual_seed(0)
    queries, keys = [3, 5, 1], ([3, 5, 1] if causal else [4, 2, 6])
    inputs = [torch.randn(sum(n), HEADS, WIDTH, requires_grad=True) for n in (queries, keys, keys)]
    weights = torch.randn(sum(queries), HEADS, WIDTH)
    bounds = [torch.tensor([0, *n]).cumsum(0).int() for n in (queries, keys)]
    run = torch.compile(module.flash_attention_4, backend="aot_eager", fullgraph=True) if compiled else None
    out = (run or module.flash_attention_4)(*inputs, *bounds, max(queries), max(keys), causal=causal, scale=scale)
    grads = torch.autograd.grad((out * weights).sum(), inputs)
    parts = zip(*(x.split(n) for x, n in zip(inputs, (queries, keys, keys), strict=True)), strict=True)
    expected = torch.cat(
        [
            F.scaled_dot_product_attention(*(x.transpose(0, 1) for x in qkv), is_causal=causal, scale=scale)
            for qkv in parts
        ],
        dim=1,
    ).transpose(0, 1)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(grads, torch.autograd.grad((expected * weights).sum(), inputs))


@pytest.mark.parametrize("deterministic", [False, True])
def test_the_backward_pass_is_deterministic_if_torch_is(kernels: Kernels, deterministic: bool) -> None:
    query = torch.randn(4, HEADS, WIDTH, requires_grad=True)
    bounds = torch.tensor([0, 4], dtype=torch.int32)
    torch.use_deterministic_algorithms(deterministic)
    try:
        out = module.flash_attention_4(query, query, query, bounds, bounds, 4, 4, causal=False, scale=None)
        out.sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)
    assert kernels.asked[-1]["deterministic"] is deterministic


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Facts of a machine with the package and a GPU that it serves; a test changes one of them."""
    facts = SimpleNamespace(present=True, capability=(9, 0), version="4.0.0b36", error=None)

    def load(name: str) -> Any:
        if facts.error:
            raise facts.error
        return name

    monkeypatch.setattr(module, "has_package", lambda name: facts.present)
    monkeypatch.setattr(module, "package_version", lambda name: facts.version)
    monkeypatch.setattr(module, "import_module", load)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: facts.capability)
    monkeypatch.delenv("FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED", raising=False)
    module._kernels.cache_clear()
    return facts


@pytest.mark.parametrize(
    ("changed", "used", "message"),
    [
        ({}, True, "Attention of packed rows: flash-attn-4 4.0.0b36."),
        ({"capability": (10, 0)}, True, "Attention of packed rows"),
        ({"present": False}, False, ""),
        ({"capability": (8, 6)}, False, ""),
        ({"version": "4.1.0"}, False, "flash-attn-4 4.1.0 is not used: versions"),
        ({"version": "4.0.0b35"}, False, "flash-attn-4 4.0.0b35 is not used"),
        ({"error": ImportError("no cutlass")}, False, "cannot be imported: no cutlass"),
    ],
)
def test_the_package_is_used_where_it_can_serve(
    installed: SimpleNamespace, caplog: pytest.LogCaptureFixture, changed: dict[str, Any], used: bool, message: str
) -> None:
    vars(installed).update(changed)
    caplog.set_level("INFO", logger="bionemo")
    try:
        assert (module._kernels() is not None) is used
        assert module._kernels() is module._kernels()
    finally:
        module._kernels.cache_clear()
    assert len(caplog.messages) == (1 if message else 0)
    assert message in "".join(caplog.messages)


@pytest.mark.parametrize(
    ("dtype", "width", "supported"),
    [
        (torch.bfloat16, 64, True),
        (torch.float16, 128, True),
        (torch.float32, 64, False),
        (torch.bfloat16, 20, False),
        (torch.bfloat16, 256, False),
    ],
)
def test_rows_that_the_kernels_know(kernels: Kernels, dtype: torch.dtype, width: int, supported: bool) -> None:
    query = SimpleNamespace(is_cuda=True, dtype=dtype, shape=(5, 2, width))
    assert module.is_supported(query) is supported  # type: ignore[arg-type]
    query.is_cuda = False
    assert not module.is_supported(query)  # type: ignore[arg-type]


def test_the_extra_and_the_code_name_the_same_versions() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    (requirement,) = project["optional-dependencies"]["flash"]
    assert Requirement(requirement).name == "flash-attn-4"
    assert Requirement(requirement).specifier == module.VERSIONS
