"""The trainable model around a network of transformers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from bionemo_core.data.batches.masking import MaskedLanguageObjective
from bionemo_core.data.model_input import input_form
from bionemo_core.errors import ConfigError
from bionemo_core.parallel.groups import start_groups
from bionemo_core.protocols import BuildContext, Tokenizer
from bionemo_core.training.module import LanguageModule
from bionemo_huggingface.families import MASKED, class_of, read_config
from bionemo_huggingface.network import network_of_model, positions_of
from bionemo_huggingface.sizes import MaskingShares


def build(
    config: str, seq_length: int, masking: MaskingShares, tokenizer: Tokenizer, context: BuildContext
) -> LanguageModule:
    """Build the model that a `config.json` describes, with random weights.

    Raises:
        ConfigError: the tokenizer has more tokens than the model, or the model fewer positions than `seq_length`.
    """
    start_groups(context.tensor_model_parallel_size)
    settings = read_config(config)
    if tokenizer.vocab_size > settings.vocab_size:
        raise ConfigError(
            f"model.config: vocab_size is {settings.vocab_size}, but the tokenizer has {tokenizer.vocab_size} tokens. "
            "Choose the tokenizer of this model."
        )
    torch.manual_seed(context.seed)
    with quiet_transformers():
        model = class_of(settings)(settings)
    framed = input_form(tokenizer).terminals == (1, 1)
    network = network_of_model(model, tokenizer.vocab_size, framed=framed, masked=settings.model_type in MASKED)
    positions = positions_of(network.encoder)
    if positions is not None and seq_length > positions:
        raise ConfigError(f"model.seq_length: got {seq_length}, but the model has {positions} positions.")
    objective = MaskedLanguageObjective(
        mask_id=tokenizer.mask_id,
        special_ids=tokenizer.special_ids,
        vocab_size=tokenizer.vocab_size,
        modify_percent=masking.modify_percent,
        mask_percent=masking.mask_percent,
        perturb_percent=masking.perturb_percent,
        identity_percent=masking.identity_percent,
    )
    return LanguageModule(network, objective, seq_length=seq_length)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers from reporting what this plugin checks and reports itself."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
