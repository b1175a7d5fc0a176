"""Weights of other frameworks under our names: what the parity tests load."""

import io
import tarfile
from pathlib import Path

import torch
from torch import Tensor

from bionemo_core.nn.encoder import EncoderLM


def padded_rows(tensor: Tensor, rows: int) -> Tensor:
    """`tensor` with zero rows added at the end."""
    whole = torch.zeros(rows, *tensor.shape[1:])
    whole[: tensor.shape[0]] = tensor
    return whole


def from_transformers(source: dict[str, Tensor], network: EncoderLM) -> dict[str, Tensor]:
    """The state of `network` from that of a Hugging Face `EsmForMaskedLM`."""
    heads, hidden = network.config.num_attention_heads, network.config.hidden_size
    rows = network.embedding.word_embeddings.weight.shape[0]
    state = {
        "embedding.word_embeddings.weight": padded_rows(source["esm.embeddings.word_embeddings.weight"], rows),
        "head.output.bias": padded_rows(source["lm_head.bias"], rows),
    }
    if network.embedding.position_embeddings is not None:
        state["embedding.position_embeddings.weight"] = source["esm.embeddings.position_embeddings.weight"]
    pairs = {"encoder.final_layernorm": "esm.encoder.emb_layer_norm_after"}
    pairs |= {"head.dense": "lm_head.dense", "head.layer_norm": "lm_head.layer_norm"}
    if network.embedding.layer_norm is not None:
        pairs["embedding.layer_norm"] = "esm.embeddings.layer_norm"
    for i in range(network.config.num_layers):
        ours, theirs = f"encoder.layers.{i}", f"esm.encoder.layer.{i}"
        pairs |= {
            f"{ours}.self_attention.linear_proj": f"{theirs}.attention.output.dense",
            f"{ours}.input_layernorm": f"{theirs}.attention.LayerNorm",
            f"{ours}.pre_mlp_layernorm": f"{theirs}.LayerNorm",
            f"{ours}.mlp.linear_fc1": f"{theirs}.intermediate.dense",
            f"{ours}.mlp.linear_fc2": f"{theirs}.output.dense",
        }
        for kind in ("weight", "bias"):
            parts = [source[f"{theirs}.attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
            per_head = [part.view(heads, hidden // heads, *part.shape[1:]) for part in parts]
            state[f"{ours}.self_attention.linear_qkv.{kind}"] = torch.cat(per_head, dim=1).flatten(0, 1)
    return state | {
        f"{ours}.{kind}": source[f"{theirs}.{kind}"] for ours, theirs in pairs.items() for kind in ("weight", "bias")
    }


def from_nemo(archive: Path, network: EncoderLM) -> dict[str, Tensor]:
    """The state of `network` from the v1 archive of an ESM-1nv."""
    with tarfile.open(archive) as members:
        member = members.extractfile("./model_weights.ckpt")
        assert member is not None
        source = torch.load(io.BytesIO(member.read()), weights_only=True)
    pairs = {"encoder.final_layernorm": "model.language_model.encoder.final_layernorm"}
    pairs |= {"head.dense": "model.lm_head.dense", "head.layer_norm": "model.lm_head.layernorm"}
    for i in range(network.config.num_layers):
        ours, theirs = f"encoder.layers.{i}", f"model.language_model.encoder.layers.{i}"
        pairs |= {
            f"{ours}.self_attention.linear_qkv": f"{theirs}.self_attention.query_key_value",
            f"{ours}.self_attention.linear_proj": f"{theirs}.self_attention.dense",
            f"{ours}.input_layernorm": f"{theirs}.input_layernorm",
            f"{ours}.pre_mlp_layernorm": f"{theirs}.post_attention_layernorm",
            f"{ours}.mlp.linear_fc1": f"{theirs}.mlp.dense_h_to_4h",
            f"{ours}.mlp.linear_fc2": f"{theirs}.mlp.dense_4h_to_h",
        }
    embedding = "model.language_model.embedding"
    return {
        "embedding.word_embeddings.weight": source[f"{embedding}.word_embeddings.weight"],
        "embedding.position_embeddings.weight": source[f"{embedding}.position_embeddings.weight"],
        "head.output.bias": source["model.lm_head.bias"],
    } | {f"{ours}.{kind}": source[f"{theirs}.{kind}"] for ours, theirs in pairs.items() for kind in ("weight", "bias")}
