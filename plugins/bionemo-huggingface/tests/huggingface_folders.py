"""Folders as transformers saves them: tiny models with random weights, and their tokenizers."""

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from bionemo_huggingface.sizes import PROTBERT_PIECES

SMILES = ["CC(=O)Oc1ccccc1C(=O)O", "CN1C=NC2=C1C(=O)N(C(=O)N2C)C", "c1ccccc1", "CCO"]
PROTEINS = ["MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ", "GAVLIMFWPSTCYNQDEKRH", "MKV"]
SPECIAL = ["<pad>", "<unk>", "<s>", "</s>", "<mask>"]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


def byte_pairs() -> Tokenizer:
    """A vocabulary of SMILES with tokens of several letters, as ChemBERTa's."""
    letters = sorted(set("".join(SMILES)))
    pieces = [*SPECIAL, *letters, "CC", "cc", "cccc", "(=", "(=O", "(=O)"]
    merges = [("C", "C"), ("c", "c"), ("cc", "cc"), ("(", "="), ("(=", "O"), ("(=O", ")")]
    made = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges, unk_token="<unk>"))
    made.decoder = decoders.Fuse()
    made.add_special_tokens(SPECIAL)
    return made


def chemical_tokenizer() -> Any:
    made = byte_pairs()
    made.post_processor = processors.RobertaProcessing(("</s>", 3), ("<s>", 2), add_prefix_space=False)
    names = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>"}
    names |= {"pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **names)


def protein_tokenizer(folder: Path) -> Any:
    """ProtBert's, of residues with spaces between them."""
    (folder / "vocab.txt").write_text("\n".join(PROTBERT_PIECES))
    return transformers.BertTokenizer(str(folder / "vocab.txt"), do_lower_case=False)


def t5_tokenizer() -> Any:
    """Ankh's kind: residues that are given as words, and EOS after them."""
    pieces = ["<pad>", "</s>", "<unk>", *"ALGVSREDTIPKFQNYMHWCXBOUZ", "<extra_id_0>"]
    made = Tokenizer(models.Unigram([(piece, -2.0) for piece in pieces], unk_id=2))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(["<pad>", "</s>", "<unk>", "<extra_id_0>"])
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": "<extra_id_0>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **names)


def disturb(model: Any) -> Any:
    """Add noise to every weight, so that no swap hides behind equal values."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def save_bert(folder: Path, name: str = "BertForMaskedLM", **changes: Any) -> tuple[Any, Any]:
    config = transformers.BertConfig(vocab_size=30, max_position_embeddings=64, **{**SIZES, **changes})
    return _save(folder, getattr(transformers, name)(config), protein_tokenizer(folder))


def save_roberta(folder: Path) -> tuple[Any, Any]:
    tokenizer = chemical_tokenizer()
    config = transformers.RobertaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=66, pad_token_id=0, bos_token_id=2, eos_token_id=3, **SIZES
    )
    return _save(folder, transformers.RobertaForMaskedLM(config), tokenizer)


def save_roformer(folder: Path) -> tuple[Any, Any]:
    config = transformers.RoFormerConfig(vocab_size=30, max_position_embeddings=64, **SIZES)
    return _save(folder, transformers.RoFormerForMaskedLM(config), protein_tokenizer(folder))


def save_t5(folder: Path) -> tuple[Any, Any]:
    config = transformers.T5Config(
        vocab_size=32, d_model=32, num_heads=4, d_kv=8, num_layers=2, d_ff=48, feed_forward_proj="gated-gelu",
        pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
    )  # fmt: skip
    return _save(folder, transformers.T5EncoderModel(config), t5_tokenizer())


def _save(folder: Path, model: Any, tokenizer: Any) -> tuple[Any, Any]:
    disturb(model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer
