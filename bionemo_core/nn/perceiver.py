"""A Perceiver encoder: a fixed number of learned latents that attend to the tokens (Jaegle et al. 2021).

The structure is that of NeMo's `perceiver` encoder, which MolMIM uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bionemo_core.errors import ConfigError
from bionemo_core.megatron import PackedSeqParams, TransformerConfig, build_module
from bionemo_core.nn.attention import packed_params
from bionemo_core.nn.layers import Norm, layer_spec
from bionemo_core.nn.stacks import Memory, StackOptions
from bionemo_core.parallel.groups import ProcessGroups

if TYPE_CHECKING:
    from bionemo_core.data.batches.batch import TokenBatch


class PerceiverEncoder(torch.nn.Module):
    """Learned latents and `config.num_layers` residual groups of layers.

    In the first layer of a group the latents attend to themselves and to the tokens, in the others to themselves.

    Args:
        hidden_steps: number of latents.
        self_per_cross: layers of self attention after each layer with cross attention.

    Raises:
        ConfigError: there is no latent, or the options demand relative positions.
    """

    def __init__(
        self,
        config: TransformerConfig,
        options: StackOptions,
        groups: ProcessGroups,
        *,
        hidden_steps: int,
        self_per_cross: int = 1,
    ) -> None:
        super().__init__()
        if hidden_steps < 1 or self_per_cross < 0:
            raise ConfigError(
                f"model.hidden_steps={hidden_steps}, model.num_self_attention_per_cross_attention={self_per_cross}: a "
                "perceiver needs 1 or more latents, and 0 or more layers of self attention."
            )
        if options.position_embedding_type == "relative":
            raise ConfigError(
                "model.position_embedding_type=relative: a perceiver cannot use it, because latents and tokens have no "
                "distance. Use model.position_embedding_type=learned_absolute."
            )
        self.self_per_cross = self_per_cross
        self.init_hidden = torch.nn.Parameter(torch.empty(hidden_steps, config.hidden_size, dtype=config.params_dtype))
        torch.nn.init.xavier_normal_(self.init_hidden)
        block_type = options.transformer_block_type
        cross_layer = layer_spec(config, block_type, cross_groups=groups)
        self_layer = layer_spec(config, block_type)

        def build(spec: object, number: int) -> torch.nn.Module:
            return build_module(spec, config=config, layer_number=number, pg_collection=groups.collection)

        numbers = range(1, config.num_layers + 1)
        self.cross_layers = torch.nn.ModuleList([build(cross_layer, number) for number in numbers])
        self.self_layers = torch.nn.ModuleList([build(self_layer, n) for n in numbers for _ in range(self_per_cross)])
        self.final_layernorm = (
            Norm(config, config.hidden_size, config.layernorm_epsilon) if block_type != "post_ln" else None
        )

    @property
    def layers(self) -> list[torch.nn.Module]:
        """The transformer layers."""
        return [*self.cross_layers, *self.self_layers]

    def forward(self, embedded: Tensor, source: TokenBatch) -> Memory:
        """Return the latents, a memory of shape [latents, rows or sequences of the pack, hidden]."""
        rows, bounds = self._rows_and_bounds(source)
        latents = self.init_hidden.unsqueeze(1).expand(-1, rows, -1).contiguous()
        for index, cross_layer in enumerate(self.cross_layers):
            before = latents
            latents, _ = cross_layer(latents, None, context=embedded, context_mask=bounds)
            for offset in range(self.self_per_cross):
                latents, _ = self.self_layers[index * self.self_per_cross + offset](latents, None)
            latents = latents + before
        if self.final_layernorm is not None:
            latents = self.final_layernorm(latents)
        return Memory(latents, num_sequences=source.num_sequences)

    def _rows_and_bounds(self, source: TokenBatch) -> tuple[int, PackedSeqParams | Tensor | None]:
        if source.cu_seqlens is None:
            full = source.num_tokens == source.tokens.numel()
            return source.tokens.shape[0], None if full else ~source.padding_mask[:, None, None, :]
        steps, rows = self.init_hidden.shape[0], source.cu_seqlens.shape[0] - 1
        latents = torch.arange(rows + 1, dtype=torch.int32, device=source.cu_seqlens.device) * steps
        return rows, packed_params(latents, steps, source.cu_seqlens, source.max_seqlen)
