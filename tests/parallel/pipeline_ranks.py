"""One of two pipeline stages of `test_pipeline_gradients`: prints what it found as JSON.

python pipeline_ranks.py RANK STORE_FILE
"""

import json
import sys
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist

from bionemo_core.config.recompute_options import Recompute
from bionemo_core.data.batches.batch import TokenBatch, micro_batch_of
from bionemo_core.data.batches.rows import RowShape, collate
from bionemo_core.nn.embedding import EmbeddingOptions
from bionemo_core.nn.encoder import EncoderLM
from bionemo_core.nn.layers import transformer_config
from bionemo_core.parallel.dropout import seed_micro_batch
from bionemo_core.parallel.groups import start_groups
from bionemo_core.parallel.layout import read_layouts
from bionemo_core.parallel.pipeline.stages import keep_stage, plan_stages, stage_layouts, sum_tied_gradients
from bionemo_core.parallel.recompute import recompute_layers
from bionemo_core.parallel.sharding import reshard, shard
from bionemo_core.protocols import Example
from bionemo_core.training.gradients import gradient_norm
from bionemo_core.training.losses import LossSums
from bionemo_core.training.pipeline_passes import PipelinePasses

CPU = torch.device("cpu")
FACTOR = 0.01


@dataclass(frozen=True)
class Case:
    """What is compared with one rank."""

    packed: bool = True
    dropout: float = 0.2
    tied: bool = True
    micro_batches: int = 4
    recompute: str = "none"
    dtype: torch.dtype = torch.float32


CASES = {
    "dropout": Case(),
    "padded": Case(packed=False, dropout=0.0),
    "untied": Case(tied=False),
    "one micro batch": Case(micro_batches=1),
    "recomputed": Case(recompute="full"),
    "bf16": Case(dtype=torch.bfloat16),
}


def network(case: Case) -> EncoderLM:
    config = transformer_config(
        num_layers=3, hidden_size=32, num_attention_heads=4, hidden_dropout=case.dropout, attention_dropout=case.dropout
    )
    torch.manual_seed(2)
    embedding = EmbeddingOptions(64, layer_norm=True, dropout=case.dropout)
    made = EncoderLM(config, 30, embedding, rotary=True, groups=start_groups(1, 2), tied_head=case.tied).train()
    recompute_layers(made, Recompute(case.recompute))
    return made


def batches(case: Case) -> list[TokenBatch]:
    """Micro batches of different lengths."""
    draw, made = np.random.default_rng(5), []
    for number in range(case.micro_batches):
        ids = [draw.integers(5, 30, length).astype(np.int32) for length in (31 + number, 20, 12)]
        examples = [Example(one, one, draw.random(len(one)) < 0.7) for one in ids]
        rows, length = (1, 63 + number) if case.packed else (3, 31 + number)
        made.append(micro_batch_of(collate(examples, rows, RowShape(length, rows, 0, packing=case.packed))))
    return made


def seed(number: int) -> None:
    seed_micro_batch(1, 0, 0, number)


def one_rank(case: Case) -> tuple[float, dict[str, torch.Tensor]]:
    whole, total = network(case), 0.0
    shard(whole, whole.groups, case.dtype, CPU)
    for number, batch in enumerate(batches(case)):
        seed(number)
        loss = whole(batch)
        (loss * FACTOR).backward()
        total += float(loss)
    return total, {name: one.grad for name, one in whole.named_parameters() if one.grad is not None}


def compare(case: Case) -> dict[str, object]:
    expected, gradients = one_rank(case)
    part = network(case)
    groups = part.groups
    plan = plan_stages(part, 2)
    layouts = stage_layouts(read_layouts(part, groups), plan, groups.stage)
    keep_stage(part, plan, groups.stage)
    shard(part, groups, case.dtype, CPU)
    passes = PipelinePasses(part, groups, CPU, case.dtype)
    sums, _, _ = passes.run_step(batches(case), FACTOR, seed)
    reshard(part)
    sum_tied_gradients(part, plan, groups)
    own = dict(part.named_parameters())
    worst = max(
        float((own[name].grad - gradients[name]).abs().max() / gradients[name].abs().max().clamp(min=1e-6))
        for name in own.keys() & gradients.keys()
    )
    norm = float(gradient_norm(own.items(), layouts, groups, CPU))
    whole_norm = float(torch.stack([one.float().square().sum() for one in gradients.values()]).sum().sqrt())
    half = getattr(part, "_half_weights", None)
    evaluated = LossSums()
    with torch.no_grad():
        passes.evaluate(batches(case), evaluated)
    means = evaluated.means(groups)
    return {
        "names": sorted(own),
        "loss": float(sums[0]) / expected - 1,
        "gradients": worst,
        "norm": norm / whole_norm - 1,
        "evaluated": means.loss if means else None,
        "copies": half._half[0]._version if half else 0,
        "reached": own.keys() == {name for name in gradients if name in own},
    }


def main() -> None:
    rank, store = int(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(store, 2), rank=rank, world_size=2)
    start_groups(1, 2)
    print("FOUND " + json.dumps({name: compare(case) for name, case in CASES.items()}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
