"""What the configurations of all v1 models have in common, for their connectors."""

from collections.abc import Mapping, Sequence
from typing import Any

from bionemo_core.errors import ArtefactError
from bionemo_core.interop.connector import ForeignModel
from bionemo_core.interop.foreign_config import ForeignConfig
from bionemo_core.interop.sentencepiece_model import Kind, VocabularyPiece, read_pieces, write_model, write_table
from bionemo_core.interop.stored import Carried

NEMO_VERSION = "1.23.0"
"""The last NeMo version that v1 was built on; archives are written in its layout."""

MODEL_FILE = "protein_sequence_sentencepiece.model"
TABLE_FILE = "protein_sequence_sentencepiece.vocab"

# Log-probabilities of the residues in UniRef50, from v1's SentencePiece model; 9 digits determine a float32.
_RESIDUES = "LASGVERTDIPKNFQYHMCWXBZUO"
_SCORES = (
    *(-2.34290886, -2.44806671, -2.592062, -2.66914749, -2.72836876, -2.79440308, -2.82210541, -2.85346413),
    *(-2.90461731, -2.90565109, -2.97967148, -2.99080849, -3.19137383, -3.24603844, -3.25985527, -3.53079319),
    *(-3.8112278, -3.84089375, -4.24820328, -4.32938671, -7.83936691, -15.1736145, -15.8667622, -16.1544437),
    -18.7571335,
)
PROTEIN_PIECES = (
    VocabularyPiece("<unk>", kind=Kind.UNKNOWN),
    *(VocabularyPiece(text, kind=Kind.CONTROL) for text in ("<s>", "</s>", "<pad>")),
    VocabularyPiece("<mask>", kind=Kind.USER_DEFINED),
    *(VocabularyPiece(letter, score) for letter, score in zip(_RESIDUES, _SCORES, strict=True)),
)
"""The 30 pieces of ESM-1nv and ProtT5nv."""


def check_same_mathematics(config: ForeignConfig) -> None:
    """Check that the layers of a configuration compute what this framework's layers do.

    Raises:
        ArtefactError: a setting changes the result or the layout of the weights.
    """
    config.must_be("megatron_legacy", False, None)
    config.must_be("normalization", "layernorm", None)
    config.must_be("transformer_block_type", "pre_ln", None)
    config.must_be("bias", True, None)
    config.must_be("headscale", False, None)
    config.must_be("position_embedding_type", "learned_absolute", None)
    config.must_be("openai_gelu", False, None)
    config.must_be("onnx_safe", False, None)
    if config.has("kv_channels"):
        config.must_be("kv_channels", config.size("hidden_size") // config.size("num_attention_heads"))


def recipe_config(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of an archive's configuration that every v1 model has, from our model's parameters."""
    return {
        "micro_batch_size": 1,
        "global_batch_size": 1,
        "tensor_model_parallel_size": 1,
        "pipeline_model_parallel_size": 1,
        "make_vocab_size_divisible_by": 128,
        "pre_process": True,
        "post_process": True,
        "megatron_amp_O2": False,
        "seq_length": params["seq_length"],
        "max_position_embeddings": params["seq_length"],
        "num_layers": params["num_layers"],
        "hidden_size": params["hidden_size"],
        "ffn_hidden_size": params["ffn_hidden_size"] or 4 * params["hidden_size"],
        "num_attention_heads": params["num_attention_heads"],
        "kv_channels": None,
        "hidden_dropout": params["hidden_dropout"],
        "attention_dropout": params["attention_dropout"],
        "layernorm_epsilon": params["layernorm_epsilon"],
        "init_method_std": params["init_method_std"],
        "apply_query_key_layer_scaling": True,
        "masked_softmax_fusion": True,
        "position_embedding_type": "learned_absolute",
        "precision": 32,
        "nemo_version": NEMO_VERSION,
    }


def sentencepiece_pieces(source: ForeignModel) -> list[str]:
    """Return the texts of the pieces of the archive's SentencePiece model.

    Raises:
        ArtefactError: the archive has no such tokenizer.
    """
    tokenizer = source.config.section("tokenizer")
    tokenizer.must_be("library", "sentencepiece")
    name = tokenizer.text("model")
    if name not in source.files:
        raise ArtefactError(f"{tokenizer.where}: model is {name[:120]!r}, which is not in the archive.")
    return [piece.text for piece in read_pieces(source.files[name], f"{tokenizer.where}: model")]


def carried_files(source: ForeignModel) -> Carried:
    """Return the archive's tokenizer files, under the names that `sentencepiece_files` looks for."""
    section = source.config.section("tokenizer").values
    names = {MODEL_FILE: str(section.get("model")), TABLE_FILE: str(section.get("vocab_file"))}
    return Carried("nemo", files={ours: source.files[name] for ours, name in names.items() if name in source.files})


def sentencepiece_files(
    pieces: Sequence[VocabularyPiece], pad_id: int, carried: Carried
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return the tokenizer's files, carried over or written from the pieces, and its section of the configuration."""
    files = {MODEL_FILE: write_model(pieces, pad_id), TABLE_FILE: write_table(pieces)}
    if carried.format == "nemo":
        files |= {name: carried.files[name] for name in files if name in carried.files}
    section = {
        "library": "sentencepiece",
        "type": None,
        "model": MODEL_FILE,
        "vocab_file": TABLE_FILE,
        "merge_file": None,
    }
    return files, section
