"""Training steps on one GPU, bfloat16, as a run has them: float32 weights, 16-bit copies, compiled layers, passes that
are recorded as CUDA graphs, fused AdamW.

Batches are packed, their shapes static, and already on the card, so that the loader does not count. Cases:

- megamolbart, molmim: 6 + 6 layers, 512 hidden, 8 heads, 2,048 molecules of 40 +- 8 tokens a step, with v1's dropout of
  0.1 and without, against Hugging Face's BART of that shape (dropout 0.1), padded to the longest, autocast, eager and
  compiled;
- esm2: the 650M shape, 16 packs of 1,024 tokens, full-length proteins and lengths as UniRef50 has them; with the
  package flash-attn-4 also without it.

Medians of steps timed by CUDA events, compilation and recording apart. `--plain` records nothing, as
`trainer.cuda_graphs=false`. `--profile` lists the kernels that take longest.

    python benchmarks/bench_training_gpu.py [--cases megamolbart,molmim,bart,esm2] [--steps 10] [--plain] [--profile]
"""

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.distributed as dist
import transformers

from bionemo_core.data.batches.batch import Seq2SeqBatch, TokenBatch
from bionemo_core.data.batches.rows import RowShape, collate, collate_pairs
from bionemo_core.nn.kernels import flash_attention_4
from bionemo_core.parallel.compiled_layers import compile_layers
from bionemo_core.parallel.groups import start_groups
from bionemo_core.parallel.sharding import shard
from bionemo_core.protocols import BuildContext, Example, Seq2SeqExample
from bionemo_core.training.cuda_graphs import make_pass_runner
from bionemo_esm import presets as esm
from bionemo_esm.tokenizer import esm2_tokenizer
from bionemo_molbart import presets as molbart
from bionemo_molbart.tokenizer import molbart_tokenizer

MOLECULES, VOCABULARY, PACK = 2048, 523, 128
SIZES = {"num_layers": 6, "hidden_size": 512, "num_attention_heads": 8}


def molecules() -> list[Seq2SeqExample]:
    """Random tokens with the lengths of drug-like SMILES."""
    draw = np.random.default_rng(1)
    lengths = np.clip(draw.normal(40, 8, MOLECULES), 10, 90).astype(int)
    made = []
    for length in lengths:
        ids = draw.integers(272, VOCABULARY, length).astype(np.int32)
        labels = np.append(ids, 3).astype(np.int32)
        made.append(Seq2SeqExample(ids, np.insert(ids, 0, 2), labels, np.ones(length + 1, dtype=bool)))
    return made


def packed_molecules(made: list[Seq2SeqExample]) -> Seq2SeqBatch:
    """All of them in static packs that are 0.98 full, as the loader makes them."""
    packs = round(sum(len(one.labels) for one in made) / PACK / 0.98)
    shape = RowShape(PACK, packs, 0, static_shapes=True, target_length=PACK)
    records = np.arange(len(made))
    rows = collate_pairs(made, packs, shape).with_record_keys(np.zeros_like(records), records)
    return Seq2SeqBatch.of(rows).to("cuda")


def proteins(full: bool, packs: int = 16, length: int = 1024) -> TokenBatch:
    """Masked random residues in static packs."""
    draw, made, room = np.random.default_rng(2), [], packs * length
    while room > 10:
        size = length if full else int(np.clip(draw.lognormal(5.45, 0.75), 10, 1024))
        size = min(size, room)
        ids = draw.integers(4, 24, size).astype(np.int32)
        masked = draw.random(size) < 0.15
        made.append(Example(np.where(masked, 32, ids).astype(np.int32), ids, masked))
        room -= size
    shape = RowShape(length, packs, 1, static_shapes=True)
    return TokenBatch.of(collate(made, packs, shape)).to("cuda")


def our_step(network: torch.nn.Module, batch: Seq2SeqBatch | TokenBatch, record: bool) -> Callable[[], None]:
    """One optimizer step of a network that is sharded, compiled and recorded as a run does it."""
    network = network.to("cuda").train()
    compile_layers(network)
    shard(network, start_groups(), torch.bfloat16, torch.device("cuda"))
    run = make_pass_runner(network, start_groups(), use_graphs=record)
    factors = 1 / batch.num_loss_tokens, 1 / batch.num_sequences
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        run(batch, *factors)
        optimizer.step()

    def checked() -> None:
        nonlocal before
        step()
        if before is not None:  # a step that updates nothing would be a fast one
            assert not torch.equal(next(network.parameters()), before), "the step updated nothing"
            before = None

    before: torch.Tensor | None = next(network.parameters()).detach().clone()
    return checked


def protein_steps(batch: TokenBatch, record: bool) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield a step of ESM-2 650M with each attention kernel that is there, and the kernel."""
    found = flash_attention_4.is_supported
    has_package = found(torch.zeros(1, 20, 64, dtype=torch.bfloat16, device="cuda"))
    for used in (True, False) if has_package else (False,):
        flash_attention_4.is_supported = found if used else lambda query: False
        torch.compiler.reset()
        module = esm.esm2(
            num_layers=33,
            hidden_size=1280,
            num_attention_heads=20,
            tokenizer=esm2_tokenizer(),
            context=BuildContext(device="cuda"),
        )
        yield (", flash-attn-4" if used else ""), our_step(module.network, batch, record)
        del module  # before the next one is made, so that peaks of memory can be compared
    flash_attention_4.is_supported = found


def molecule_step(kind: str, dropout: float, batch: Seq2SeqBatch, record: bool) -> Callable[[], None]:
    """A step of MegaMolBART or MolMIM."""
    factory = {"megamolbart": molbart.megamolbart, "molmim": molbart.molmim}[kind]
    options = {"hidden_dropout": dropout, "attention_dropout": dropout, "seq_length": PACK}
    module = factory(**SIZES, **options, tokenizer=molbart_tokenizer(), context=BuildContext(device="cuda"))
    return our_step(module.network, batch, record)


def bart_step(compiled: bool, made: list[Seq2SeqExample]) -> Callable[[], None]:
    """A step of Hugging Face's BART of that shape, padded to the longest."""
    config = transformers.BartConfig(
        vocab_size=640,
        d_model=512,
        encoder_layers=6,
        decoder_layers=6,
        encoder_attention_heads=8,
        decoder_attention_heads=8,
        encoder_ffn_dim=2048,
        decoder_ffn_dim=2048,
        max_position_embeddings=PACK,
        pad_token_id=0,
        attn_implementation="sdpa",
    )
    model = transformers.BartForConditionalGeneration(config).cuda().train()
    longest = max(len(one.labels) for one in made)
    shape = RowShape(longest, len(made), 0, packing=False, target_length=longest)
    padded = Seq2SeqBatch.of(collate_pairs(made, len(made), shape)).to("cuda")
    inputs = {
        "input_ids": padded.source.tokens,
        "attention_mask": padded.source.padding_mask.long(),
        "decoder_input_ids": padded.target.tokens,
        "labels": padded.target.labels.masked_fill(~padded.target.loss_mask, -100),
    }
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    run = torch.compile(model) if compiled else model

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16):
            loss = run(**inputs).loss
        loss.backward()
        optimizer.step()

    return step


def timed(step: Callable[[], None], steps: int, profile: bool) -> tuple[float, float]:
    """Seconds of the first step, and the median of those after a few more."""
    started = time.perf_counter()
    step()
    torch.cuda.synchronize()
    first = time.perf_counter() - started
    for _ in range(4):
        step()
    times = []
    for _ in range(steps):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        step()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    if profile:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as seen:
            step()
            torch.cuda.synchronize()
        print(seen.key_averages().table(sort_by="cuda_time_total", row_limit=22, max_name_column_width=90))
    return first, statistics.median(times)


def report(name: str, step: Callable[[], None], count: int, unit: str, steps: int, profile: bool) -> None:
    """Print one line."""
    first, median = timed(step, steps, profile)
    memory = torch.cuda.max_memory_allocated() / 2**30
    torch.cuda.reset_peak_memory_stats()
    rate = f"{count / median:,.0f} {unit}/s"
    print(f"{name:>48}: {rate}, {median * 1e3:.1f} ms a step, first {first:.0f} s, {memory:.1f} GiB", flush=True)


def main() -> None:
    """Print the cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="megamolbart,molmim,bart,esm2")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("This measures a GPU, and torch finds none here.")
    store = dist.HashStore()
    dist.init_process_group("cpu:gloo,cuda:nccl", store=store, rank=0, world_size=1)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {torch.cuda.get_device_name()}")
    how, record = (arguments.steps, arguments.profile), not arguments.plain
    cases, made = arguments.cases.split(","), molecules()
    for kind in ("megamolbart", "molmim"):
        for dropout in (0.0, 0.1) if kind in cases else ():
            step = molecule_step(kind, dropout, packed_molecules(made), record)
            report(f"{kind}, dropout {dropout}", step, MOLECULES, "molecules", *how)
    for compiled in (False, True) if "bart" in cases else ():
        name = f"transformers BART, {'compiled' if compiled else 'eager'}"
        report(name, bart_step(compiled, made), MOLECULES, "molecules", *how)
    for full in (True, False) if "esm2" in cases else ():
        batch = proteins(full)
        for kernel, step in protein_steps(batch, record):
            name = f"esm2 650M, {'full-length' if full else 'UniRef-like lengths'}{kernel}"
            report(name, step, batch.num_tokens, "tokens", *how)
            del step
            gc.collect()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
