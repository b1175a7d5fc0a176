"""A served model under load: many small requests in flight, against the same sequences embedded in one call.

Both sides use random weights of the same seed; every answer is compared. Tokens per CPU second leave out what the
generator of the load uses, which shares the machine. Then requests of all kinds are mixed, and each answer is compared.
On a GPU both sides compute as there by default, in 16 bit, and what counts is tokens per second.

    python benchmarks/bench_serving.py [--model esm2_8m] [--requests 200] [--threads 1]
    python benchmarks/bench_serving.py --accelerator gpu --model esm2_650m --requests 4000 --per-request 8
"""

import argparse
import re
import subprocess
import sys
import tempfile
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch

import bionemo_core
from bionemo_core import errors
from bionemo_core.builtin import load_registry
from bionemo_core.cli.run import compose
from bionemo_core.client import Client
from bionemo_core.config.spec import make_spec
from bionemo_core.runs.device import choose_device
from bionemo_core.tasks.opening import open_for_use, single_process

TOLERANCE = {"cpu": 1e-5, "gpu": 3e-2}
"""Of the largest value, by accelerator; alone, an answer is the same bit by bit."""
IN_FLIGHT = 200
"""Requests at once."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="esm2_8m")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--per-request", type=int, default=1, help="sequences of one request for embeddings")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--accelerator", choices=sorted(TOLERANCE), default="cpu")
    chosen = parser.parse_args()
    typed = [f"model={chosen.model}", f"trainer.accelerator={chosen.accelerator}"]
    if chosen.accelerator == "cpu":
        typed.append(f"trainer.num_threads={chosen.threads}")
    sequences = _sequences(chosen.requests * chosen.per_request)
    tokens = sum(len(one) + 2 for one in sequences)
    model = _open(typed)
    bionemo_core.embed(model, sequences[: max(8, len(sequences) // 4)])
    began, cpu = perf_counter(), process_time()
    expected = bionemo_core.embed(model, sequences)
    one_call = (perf_counter() - began, process_time() - cpu)
    print(f"{'':<22} {'seconds':>8} {'CPU s':>8} {'tokens/s':>10} {'tokens/CPU s':>13}")
    _show("one call", tokens, *one_call)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        command = [sys.executable, "-m", "bionemo_core", "serve", *typed, "task.port=0", "task.timeout_s=600"]
        with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=output) as server:
            try:
                client = Client(_address(server, log), timeout_s=600)
                cut = range(0, len(sequences), chosen.per_request)
                asked = [sequences[start : start + chosen.per_request] for start in cut]
                off = _load(client, asked, tokens, expected, one_call)
                assert off < TOLERANCE[chosen.accelerator]
                _mix(client, model, sequences, expected, TOLERANCE[chosen.accelerator])
            finally:
                server.terminate()
        if server.returncode:
            raise SystemExit(f"the server ended with status {server.returncode}:\n{log.read_text()}")


def _sequences(count: int) -> list[str]:
    """Random proteins with lengths like those of UniRef50, of up to 1,000 residues."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(5.3, 0.7, count), 20, 1000).astype(int)
    return ["".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), length)) for length in lengths]


def _open(typed: list[str]) -> Any:
    registry = load_registry()
    spec = make_spec(compose(["task=serve", *typed], registry), registry)
    device = choose_device(spec)
    return open_for_use(spec, registry, device, single_process(spec, device))


def _address(server: subprocess.Popen[bytes], log: Path) -> str:
    waited = threading.Event()
    while server.poll() is None:
        if found := re.search(r" on (http://\S+);", log.read_text()):
            return found[1]
        waited.wait(0.2)
    raise SystemExit(log.read_text())


def _load(
    client: Client, asked: list[list[str]], tokens: int, expected: np.ndarray, one_call: tuple[float, float]
) -> float:
    """Send all requests, `IN_FLIGHT` at once; return the largest difference of an answer, of the largest value."""
    for one in asked[:8]:
        client.embed(one)
    seconds = [0.0] * len(asked)

    def ask(number: int) -> np.ndarray:
        began = perf_counter()
        vectors = client.embed(asked[number])
        seconds[number] = perf_counter() - began
        return np.stack(vectors)

    before, own, began = _metrics(client), process_time(), perf_counter()
    with ThreadPoolExecutor(min(IN_FLIGHT, len(asked))) as pool:
        found = np.concatenate(list(pool.map(ask, range(len(asked)))))
    elapsed, own, after = perf_counter() - began, process_time() - own, _metrics(client)
    cpu = after["process_cpu_seconds_total"] - before["process_cpu_seconds_total"]
    _show(f"{len(asked)} requests", tokens, elapsed, cpu)
    middle, late = np.quantile(seconds, [0.5, 0.99])
    passes = after["bionemo_requests_per_pass_count"] - before["bionemo_requests_per_pass_count"]
    print(f"  p50 {middle:.2f} s, p99 {late:.2f} s; {passes:.0f} passes; the generator used {own:.2f} CPU s")
    print(f"  tokens per second {one_call[0] / elapsed:.2f} of one call, per CPU second {one_call[1] / cpu:.2f}")
    off = float(np.abs(found - expected).max() / np.abs(expected).max())
    print(f"  largest difference {off:.1e} of the largest value")
    return off


def _mix(client: Client, model: Any, sequences: list[str], expected: np.ndarray, tolerance: float) -> None:
    """Mix requests of all kinds that the model answers with bad ones; none may be lost or wrong."""
    short = sorted(sequences, key=len)[:4]
    variants = [f"{letter}{at}A" for at, letter in enumerate(short[0][:6], start=1) if letter != "A"]
    scores = bionemo_core.score(model, variants, wild_type=short[0])
    score_tolerance = 0.0 if model.module.device.type == "cpu" else tolerance * np.abs(scores).max()

    def ask(number: int) -> bool:
        if number % 4 == 0:
            return bool(np.allclose(client.score(variants, wild_type=short[0]), scores, rtol=0, atol=score_tolerance))
        if number % 4 == 1:
            try:
                client.embed(["MK7"])
            except errors.DataError:
                return True
            return False
        if number % 4 == 2:
            return client.ask("model")["offers"] == ["embed", "score"]
        (vector,) = client.embed([sequences[number]])
        return bool(np.abs(vector - expected[number]).max() < tolerance * np.abs(expected).max())

    count = min(60, len(sequences))
    with ThreadPoolExecutor(count) as pool:
        right = sum(pool.map(ask, range(count)))
    print(f"mixed: {right} of {count} answers are right")
    assert right == count


def _metrics(client: Client) -> dict[str, float]:
    with urllib.request.urlopen(f"{client.address}/metrics") as answer:
        lines = (line.decode().rsplit(" ", 1) for line in answer if not line.startswith(b"#"))
        return {name: float(value) for name, value in lines}


def _show(name: str, tokens: int, seconds: float, cpu: float) -> None:
    print(f"{name:<22} {seconds:8.2f} {cpu:8.2f} {tokens / seconds:10,.0f} {tokens / cpu:13,.0f}", flush=True)


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
