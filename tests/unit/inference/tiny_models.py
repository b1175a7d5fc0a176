"""Small encoder-decoders of the core with random weights."""

from functools import lru_cache

import torch

from bionemo_core.data.tokenizer import CharacterTokenizer
from bionemo_core.inference.sampling import Seq2SeqInference
from bionemo_core.nn.layers import transformer_config
from bionemo_core.nn.seq2seq import Seq2SeqLM, Seq2SeqOptions
from bionemo_core.parallel.groups import start_groups

SEQ_LENGTH, MAX_LENGTH, LATENTS, HIDDEN = 24, 16, 2, 32
TOKENIZER = CharacterTokenizer(
    ("<pad>", "<unk>", "<s>", "</s>", "<mask>", *"ABCDEFGHIJ"), pad_id=0, unk_id=1, bos_id=2, eos_id=3, mask_id=4
)
TEXTS = ["ABCD", "JIHGFEDCBA", "AAAAAAA", "BD", "CAFE", "HHGGEEDDAABB", "J", "DEADBEEF"]


class LatentLM(Seq2SeqLM):
    """A network whose perceiver latents are a latent space with a prior."""

    latent_shape = (LATENTS, HIDDEN)


@lru_cache(maxsize=4)
def network(kind: str = "transformer", dtype: torch.dtype = torch.float64) -> Seq2SeqLM:
    """Return a transformer or perceiver with weights so large that different memories decode to different texts."""
    config = transformer_config(num_layers=2, hidden_size=HIDDEN, num_attention_heads=4)
    options = Seq2SeqOptions(
        max_source_positions=SEQ_LENGTH,
        max_target_positions=MAX_LENGTH,
        encoder_arch=kind,
        hidden_steps=LATENTS,
        share_decoder_tokens_head_embeddings=False,
    )
    model = (LatentLM if kind == "perceiver" else Seq2SeqLM)(
        config, config, TOKENIZER.vocab_size, options, groups=start_groups()
    )
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                scale = 0.6 if "embedding" in name else 1.4 * parameter.shape[-1] ** -0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
            if "cross_attention" in name and name.endswith("weight"):
                parameter.mul_(2.0)  # makes the output depend on the memory
            if name == "head.bias":
                parameter[list(TOKENIZER.special_ids)] = -20.0
                parameter[TOKENIZER.eos_id] = 1.0
    return model.to(dtype).eval()


def inference(kind: str = "transformer", dtype: torch.dtype = torch.float64, **options) -> Seq2SeqInference:
    return Seq2SeqInference(network(kind, dtype), TOKENIZER, SEQ_LENGTH, MAX_LENGTH, **options)
