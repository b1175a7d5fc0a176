"""ProtT5 learns given pairs: the loss is torch's, and the objective of spans is out of the way."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from bionemo_core.data.batches.loader import LoaderSettings, eval_loader
from bionemo_core.data.batches.pair_objective import PairObjective, learn_pairs
from bionemo_core.errors import ConfigError
from bionemo_core.inference.sampling import source_batch
from bionemo_core.protocols import BuildContext, DataSplits
from bionemo_t5 import presets
from bionemo_t5.tokenizer import prott5_tokenizer, prott5nv_tokenizer

PAIRS = ["MKTA\tGGV", "AUK\tV", "LLLLLLLL\tMKTAYIAK"]


class Pairs(list[str]):
    pairs = True


def test_keys_of_span_corruption_are_refused() -> None:
    sizes = {"num_layers": 1, "hidden_size": 32, "num_attention_heads": 4, "seq_length": 32, "seq_length_dec": 16}
    tokenizer, splits = prott5nv_tokenizer(), DataSplits(Pairs(PAIRS))
    module = presets.prott5nv(**sizes, tokenizer=tokenizer, context=BuildContext(seed=2))
    with pytest.raises(ConfigError, match=r"^model\.masked_lm_prob: not used with data of pairs.* Leave it out\.$"):
        learn_pairs(module, splits, tokenizer, "prott5nv", {"hidden_size": 32, "masked_lm_prob": 0.2})


@pytest.mark.parametrize("tokenizer", [prott5nv_tokenizer(), prott5_tokenizer()], ids=["prott5nv", "prott5"])
@torch.no_grad()
def test_the_loss_of_pairs_is_torchs(tokenizer: Any) -> None:
    sizes = {"num_layers": 1, "hidden_size": 32, "num_attention_heads": 4, "seq_length": 32, "seq_length_dec": 16}
    module = presets.prott5nv(**sizes, tokenizer=tokenizer, context=BuildContext(seed=2))
    learn_pairs(module, DataSplits(Pairs(PAIRS)), tokenizer, "prott5nv")
    assert isinstance(module.objective, PairObjective) and module.objective.target_length == 16
    network = module.network.eval()
    size: dict[str, Any] = {"seq_length": 32, "micro_batch_size": 3, "global_batch_size": 3, "packing": False}
    (step,) = eval_loader(Pairs(PAIRS), tokenizer, module.objective, LoaderSettings(**size))
    (batch,) = step.micro_batches
    form, expected = module.objective.input, 0.0
    for source, target in (pair.split("\t") for pair in PAIRS):
        wanted = [*tokenizer.encode(target).tolist(), tokenizer.eos_id]
        memory = network.encode(source_batch([form.add_terminals(form.encode(source))], tokenizer.pad_id, 32))
        state = network.start(memory, len(wanted))
        logits = [network.step(torch.tensor([token]), state)[0] for token in [tokenizer.bos_id, *wanted[:-1]]]
        expected += float(F.cross_entropy(torch.stack(logits), torch.tensor(wanted), reduction="sum"))
    assert float(network(batch)) == pytest.approx(expected, rel=1e-5)
    assert batch.num_loss_tokens == sum(len(pair.split("\t")[1]) + 1 for pair in PAIRS)
