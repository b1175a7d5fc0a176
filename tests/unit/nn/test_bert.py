"""`EncoderLM` with norms after the sums and token types is BERT: it computes what transformers computes."""

import pytest
import torch

from bionemo_core.interop.keys import Key, KeyTable, each_layer
from bionemo_core.nn.embedding import EmbeddingOptions
from bionemo_core.nn.encoder import EncoderLM
from bionemo_core.nn.layers import transformer_config
from bionemo_core.parallel.groups import start_groups
from bionemo_core.testing.decoding import decoder_input

LAYERS, HIDDEN, HEADS, VOCAB, POSITIONS = 2, 24, 3, 30, 32
BODY, LAYER = "bert.embeddings", "bert.encoder.layer.{i}"
NAMES = KeyTable(
    [
        Key("embedding.word_embeddings", f"{BODY}.word_embeddings", ("weight",), vocabulary=True),
        Key("embedding.position_embeddings", f"{BODY}.position_embeddings", ("weight",)),
        Key("embedding.token_type_embeddings", f"{BODY}.token_type_embeddings", ("weight",)),
        Key("embedding.layer_norm", f"{BODY}.LayerNorm"),
        *each_layer(
            LAYERS,
            Key(
                "encoder.layers.{i}.self_attention.linear_qkv",
                tuple(f"{LAYER}.attention.self.{part}" for part in ("query", "key", "value")),
                heads=HEADS,
            ),
            Key("encoder.layers.{i}.self_attention.linear_proj", f"{LAYER}.attention.output.dense"),
            Key("encoder.layers.{i}.self_attn_bda.norm", f"{LAYER}.attention.output.LayerNorm"),
            Key("encoder.layers.{i}.mlp.linear_fc1", f"{LAYER}.intermediate.dense"),
            Key("encoder.layers.{i}.mlp.linear_fc2", f"{LAYER}.output.dense"),
            Key("encoder.layers.{i}.mlp_bda.norm", f"{LAYER}.output.LayerNorm"),
        ),
        Key("head.dense", "cls.predictions.transform.dense"),
        Key("head.layer_norm", "cls.predictions.transform.LayerNorm"),
        Key("head.output", "cls.predictions", ("bias",), vocabulary=True),
    ],
    ignored=("cls.predictions.decoder.*",),
)


def bert() -> EncoderLM:
    config = transformer_config(
        num_layers=LAYERS, hidden_size=HIDDEN, num_attention_heads=HEADS, ffn_hidden_size=40, layernorm_epsilon=1e-12
    )
    options = EmbeddingOptions(max_positions=POSITIONS, layer_norm=True, token_types=2)
    return EncoderLM(config, VOCAB, options, rotary=False, groups=start_groups(), block_type="post_ln")


def test_bert_computes_what_transformers_computes():
    transformers = pytest.importorskip("transformers")
    sizes = {"num_hidden_layers": LAYERS, "hidden_size": HIDDEN, "num_attention_heads": HEADS, "intermediate_size": 40}
    config = transformers.BertConfig(vocab_size=VOCAB, max_position_embeddings=POSITIONS, type_vocab_size=2, **sizes)
    torch.manual_seed(0)
    theirs, ours = transformers.BertForMaskedLM(config).eval(), bert().eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
        found = NAMES.to_ours(theirs.state_dict(), "bert")
        assert not found.unexpected and not found.lacking
        own = ours.state_dict()
        assert found.tensors.keys() == {name for name, tensor in own.items() if isinstance(tensor, torch.Tensor)}
        for name, tensor in found.tensors.items():
            own[name][: len(tensor)] = tensor
        ids = torch.tensor([[2, 7, 9, 29, 11, 5, 3]])
        expected = theirs(input_ids=ids, output_hidden_states=True)
        batch = decoder_input(ids)
        torch.testing.assert_close(ours.hidden_states(batch)[:, 0], expected.hidden_states[-1][0], atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(ours.logits(batch)[0, :, :VOCAB], expected.logits[0], atol=2e-5, rtol=1e-5)
        ours.embedding.token_type_embeddings.weight[0, 0] += 1.0
        assert (ours.logits(batch)[0, :, :VOCAB] - expected.logits[0]).abs().max() > 1e-4


def test_without_token_types_there_is_no_table():
    config = transformer_config(num_layers=1, hidden_size=HIDDEN, num_attention_heads=HEADS)
    plain = EncoderLM(config, VOCAB, EmbeddingOptions(max_positions=None), rotary=True, groups=start_groups())
    assert not [name for name, _ in plain.named_parameters() if "token_type" in name]
