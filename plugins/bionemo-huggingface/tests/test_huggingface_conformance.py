"""The conformance kit over this plugin."""

from typing import Any, ClassVar

from huggingface_folders import byte_pairs

from bionemo_core.testing import PluginConformance
from bionemo_huggingface.folder_tokenizer import plain_definition
from bionemo_huggingface.sizes import PROTBERT_PIECES, plain_text

BERT = {
    "model_type": "bert", "vocab_size": len(PROTBERT_PIECES), "hidden_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "intermediate_size": 128, "max_position_embeddings": 128, "pad_token_id": 0,
}  # fmt: skip


class TestHuggingFace(PluginConformance):
    plugin = "bionemo-huggingface"
    parameters: ClassVar[dict[str, dict[str, Any]]] = {
        "model/huggingface_encoder": {"config": plain_text(BERT), "seq_length": 128},
        "tokenizer/huggingface_pieces": {
            "definition": plain_definition(byte_pairs().to_str()),
            **{"pad_id": 0, "unk_id": 1, "bos_id": 2, "eos_id": 3, "mask_id": 4},
        },
    }
