"""The parts of megatron-core, 0.16 to 0.19, that our networks are built of. Imports torch.

No other file imports megatron-core: what its versions do differently is settled here. They give every parameter the
same name and compute the same numbers, so a run or an artefact of one version goes on under another.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import fields
from functools import partial
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from bionemo_core.errors import ConfigError
from bionemo_core.machine import package_version


class _NoKernels(ModuleType):
    """A stand-in for a module of kernels: each can be imported, none can be called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*_: object, **__: object) -> None:
            raise ConfigError(f"{self.__name__}.{name} of megatron-core needs Triton: pip install triton.")

        return missing


if find_spec("triton") is None:
    # From 0.18 on megatron-core imports Triton for mixtures of experts, asked for or not. None of our networks has
    # them, and torch for CPUs comes without Triton.
    _kernels = "megatron.core.transformer.moe.paged_stash"
    sys.modules.setdefault(_kernels, _NoKernels(_kernels))

try:
    with warnings.catch_warnings():
        # megatron-core warns a dozen times that Apex and Transformer Engine are not installed. They are not needed.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"megatron\.core\b")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=SyntaxWarning)
        from megatron.core import parallel_state
        from megatron.core.models.common.embeddings.rope_utils import apply_rotary_pos_emb
        from megatron.core.packed_seq_params import PackedSeqParams
        from megatron.core.process_groups_config import ProcessGroupCollection
        from megatron.core.tensor_parallel.cross_entropy import vocab_parallel_cross_entropy
        from megatron.core.tensor_parallel.layers import (
            ColumnParallelLinear,
            RowParallelLinear,
            VocabParallelEmbedding,
            set_tensor_model_parallel_attributes,
        )
        from megatron.core.transformer import transformer_block, transformer_layer
        from megatron.core.transformer.attention import (
            CrossAttention,
            CrossAttentionSubmodules,
            SelfAttention,
            SelfAttentionSubmodules,
        )
        from megatron.core.transformer.enums import AttnMaskType
        from megatron.core.transformer.identity_op import IdentityOp
        from megatron.core.transformer.mlp import MLP, MLPSubmodules
        from megatron.core.transformer.spec_utils import ModuleSpec, build_module
        from megatron.core.transformer.transformer_block import TransformerBlock, TransformerBlockSubmodules
        from megatron.core.transformer.transformer_config import TransformerConfig
        from megatron.core.transformer.transformer_layer import TransformerLayer, TransformerLayerSubmodules
except ImportError as error:
    raise ConfigError(
        f"megatron-core {package_version('megatron.core')} cannot be imported: {error}. Install one that bionemo-run "
        "admits: pip install 'megatron-core>=0.16.1,<0.20'."
    ) from error

__all__ = [
    "WITHOUT_CUDA_GRAPHS",
    "AttnMaskType",
    "ColumnParallelLinear",
    "CrossAttention",
    "CrossAttentionSubmodules",
    "IdentityOp",
    "MLPSubmodules",
    "ModuleSpec",
    "PackedSeqParams",
    "ProcessGroupCollection",
    "RowParallelLinear",
    "SelfAttention",
    "SelfAttentionSubmodules",
    "TransformerBlock",
    "TransformerBlockSubmodules",
    "TransformerConfig",
    "TransformerLayer",
    "TransformerLayerSubmodules",
    "VocabParallelEmbedding",
    "apply_rotary_pos_emb",
    "build_module",
    "mlp_spec",
    "parallel_state",
    "set_tensor_model_parallel_attributes",
    "transformer_block",
    "transformer_layer",
    "vocab_parallel_cross_entropy",
]

_renamed = "cuda_graph_modules" in {one.name for one in fields(TransformerConfig)}
WITHOUT_CUDA_GRAPHS: dict[str, Any] = {"cuda_graph_modules" if _renamed else "cuda_graph_scope": []}
"""The option of `TransformerConfig` for layers that megatron-core does not capture; it warns of its own default."""


def mlp_spec(submodules: MLPSubmodules, *, ffn_hidden_size: int) -> Any:
    """Return the spec of a layer's MLP; since 0.18 megatron-core asks for a function in its place."""
    if hasattr(MLP, "as_mlp_submodule"):
        return partial(MLP.as_mlp_submodule, submodules=submodules, ffn_hidden_size=ffn_hidden_size)
    return ModuleSpec(module=MLP, params={"ffn_hidden_size": ffn_hidden_size}, submodules=submodules)
