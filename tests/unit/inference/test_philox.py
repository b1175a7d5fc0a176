"""Random numbers depend on (seed, purpose, sequence, sample, step), and on nothing else."""

import pytest
import torch

from bionemo_core.inference.philox import RowRng, philox

# Known answers from Random123, the reference implementation (kat_vectors, philox4x32 10).
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_against_the_published_known_answers(counter, key, words):
    got = philox(tuple(torch.tensor([word]) for word in counter), key)
    assert tuple(word.item() for word in got) == words


def test_a_number_does_not_depend_on_the_row():
    rng = RowRng.of(7, 10, first_sequence=90)
    numbers = rng.uniform("token", 5)
    order = torch.tensor([4, 4, 9, 0])
    assert torch.equal(rng.select(order).uniform("token", 3), numbers[order][:, :3])
    assert torch.equal(RowRng.of(7, 1, first_sequence=94).uniform("token", 5), numbers[4:5])
    noise = rng.normal("noise", 6)
    assert torch.equal(rng.select(order).normal("noise", 3), noise[order][:, :3])


def test_each_of_seed_purpose_sequence_sample_and_step_changes_the_number():
    zero, one = torch.tensor([0]), torch.tensor([1])
    drawn = [
        number
        for seed in (0, 1)
        for purpose in ("a", "b")
        for sequence in (zero, one, one << 32)
        for sample in (zero, one)
        for number in RowRng(seed, sequence, sample).uniform(purpose, 2).flatten().tolist()
    ]
    assert len(set(drawn)) == len(drawn)


def test_distributions():
    rng = RowRng.of(0, 20_000)
    uniform = rng.uniform("token", 1)
    assert uniform.min() >= 0.0 and uniform.max() < 1.0
    assert torch.histc(uniform, 20, 0, 1).sub(1000).abs().max() < 150  # 5 standard deviations
    normal = rng.normal("noise", 5).flatten()
    for power, moment in ((1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0)):
        assert normal.pow(power).mean().item() == pytest.approx(moment, abs=0.12)
    assert torch.corrcoef(rng.normal("noise", 4).T).sub(torch.eye(4)).abs().max() < 0.04
