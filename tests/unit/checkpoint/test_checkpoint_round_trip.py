"""A saved checkpoint comes back bit for bit, however its tensors were sharded and whichever block is read."""

import math
import struct
from importlib.metadata import version
from itertools import product

import pytest
import torch

from bionemo_core.checkpoint.blocks import TensorPart, whole_part
from bionemo_core.checkpoint.load import open_checkpoint, open_newest_valid
from bionemo_core.checkpoint.save import save
from bionemo_core.checkpoint.shards import DTYPE_NAMES
from bionemo_core.errors import CheckpointError


@pytest.mark.parametrize("dtype", DTYPE_NAMES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (5,), (3, 0, 2), (4, 3)], ids=str)
def test_every_dtype_and_shape_comes_back_bit_for_bit(tmp_path, dtype, shape):
    size = torch.empty(0, dtype=dtype).element_size()
    high = 2 if dtype is torch.bool else 256
    raw = torch.randint(0, high, (math.prod(shape) * size,), dtype=torch.uint8)
    tensor = raw.view(dtype).reshape(shape)

    with open_checkpoint(save(tmp_path, 1, [whole_part("t", tensor)], {})) as reader:
        back = reader.read("t")

    assert (back.dtype, back.shape) == (dtype, tensor.shape)
    assert reader.dtype("t") is dtype
    assert reader.shape("t") == tuple(shape)
    assert torch.equal(back.reshape(-1).view(torch.uint8), raw)


def test_transposed_and_strided_tensors_are_saved_by_value(tmp_path):
    base = torch.arange(24.0).reshape(4, 6)
    views = {"transposed": base.t(), "strided": base[::2, 1::3], "expanded": base[:1].expand(3, 6)}
    reader = open_checkpoint(save(tmp_path, 1, [whole_part(k, v) for k, v in views.items()], {}))
    for name, view in views.items():
        assert torch.equal(reader.read(name), view)


@pytest.mark.parametrize("axis", [0, 1])
def test_two_ranks_parts_are_read_as_any_block(tmp_path, on_ranks, axis):
    full = torch.arange(6 * 8, dtype=torch.float32).reshape(6, 8)
    cut = 2 if axis == 0 else 5
    parts = torch.tensor_split(full, [cut], dim=axis)
    offsets = [(0, 0), (cut, 0) if axis == 0 else (0, cut)]

    def save_part(peers):
        owned = [TensorPart("w", parts[peers.rank], (6, 8), offsets[peers.rank])]
        owned += [whole_part("only_on_one", torch.tensor(3.0))] if peers.rank == 1 else []
        return save(tmp_path, 5, owned, {"rank": peers.rank}, peers=peers)

    folders = on_ranks(2, save_part)

    assert folders == [tmp_path / "step-00000005"] * 2
    reader = open_checkpoint(folders[0])
    assert reader.state == {"rank": 0}
    assert reader.read("only_on_one").item() == 3.0
    for row, column, height, width in product((0, 1, 2, 5), (0, 4, 5, 7), (0, 1, 4), (1, 3)):
        if row + height <= 6 and column + width <= 8:
            block = reader.read("w", (row, column), (height, width))
            assert torch.equal(block, full[row : row + height, column : column + width])


def test_a_read_block_is_a_copy(tmp_path):
    reader = open_checkpoint(save(tmp_path, 1, [whole_part("w", torch.zeros(4))], {}))
    reader.read("w").fill_(9)
    assert torch.equal(reader.read("w"), torch.zeros(4))


def test_a_block_that_exceeds_its_tensor_or_an_unknown_name_is_refused(root):
    reader, _ = open_newest_valid(root)
    with pytest.raises(CheckpointError, match=r"'layer.weight' has shape \[6, 4\]; a block of \[2, 4\] at \[5, 0\]"):
        reader.read("layer.weight", (5, 0), (2, 4))
    with pytest.raises(CheckpointError, match="holds no tensor 'other'"):
        reader.read("other")


def test_state_of_plain_values_and_tensors_is_exact(tmp_path):
    state = {
        "floats": [0.1, -0.0, 5e-324, 1.7976931348623157e308, math.inf, -math.inf],
        "int": 2**70,
        "text": "\ud800 µ \x00",
        "nested": {"tuple": (1, (2.5, None), [True]), "empty": {}},
        "by_number": {0: {"step": torch.tensor(3.0)}, 1: {"step": torch.tensor(4.0)}},
        "$odd": {"$tensor": "not one"},
        "order": {"z": 1, "a": 2},
    }
    back = open_checkpoint(save(tmp_path, 1, [], state)).state
    tensors = [back["by_number"][i].pop("step") for i in (0, 1)]
    for i in (0, 1):
        state["by_number"][i].pop("step")
    assert back == state
    assert list(back["order"]) == ["z", "a"]
    assert [t.item() for t in tensors] == [3.0, 4.0]
    assert [struct.pack("d", x) for x in back["floats"]] == [struct.pack("d", x) for x in state["floats"]]


def test_nan_in_state_comes_back_as_nan(tmp_path):
    assert math.isnan(open_checkpoint(save(tmp_path, 1, [], {"loss": math.nan})).state["loss"])


@pytest.mark.parametrize(
    ("state", "named"),
    [
        ({"a": {"b": [1, object()]}}, r"state\.a\.b\[1\] is a builtins\.object"),
        ({"rng": b"bytes"}, r"state\.rng is a builtins\.bytes"),
        ({"optimizer": {0: {1, 2}}}, r"state\.optimizer\[0\] is a builtins\.set"),
        ({"value": torch.float32}, r"state\.value is a torch\.dtype"),
        ({"sparse": torch.eye(2).to_sparse()}, r"state\.sparse is torch\.sparse_coo"),
    ],
)
def test_foreign_state_is_refused_by_its_path_and_nothing_is_left(root, snapshot, state, named):
    before = snapshot(root)
    with pytest.raises(CheckpointError, match=named):
        save(root, 30, [], state)
    assert snapshot(root) == before


def test_state_that_holds_itself_is_refused(tmp_path):
    state: dict[str, object] = {}
    state["self"] = state
    with pytest.raises(CheckpointError, match="nested deeper"):
        save(tmp_path, 1, [], state)


def _block(offset, shape):
    return TensorPart("w", torch.zeros(shape), (4, 4), offset)


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([_block((0, 0), (2, 4))], "hold 8 of the 16 elements"),
        ([_block((0, 0), (2, 4)), _block((1, 0), (3, 4))], "overlap"),
        ([_block((0, 0), (2, 4)), _block((3, 0), (2, 4))], "does not lie within"),
        ([_block((0, 0), (4, 3)), _block((0, 2), (4, 2))], "overlap"),
        ([_block((0, 0), (4, 4)), _block((0, 0), (4, 4))], "given twice"),
        ([_block((0, 0), (2, 4)), TensorPart("w", torch.zeros(2, 4, dtype=torch.int32), (4, 4), (2, 0))], "F32"),
        ([_block((0,), (4, 4))], "must have the 2 dims"),
        ([whole_part("w", torch.zeros(2, dtype=torch.complex64))], "has dtype torch.complex64"),
        ([whole_part("w", torch.zeros(2, device="meta"))], "on the meta device"),
    ],
)
def test_parts_that_do_not_make_up_the_whole_are_refused(root, snapshot, parts, reason):
    before = snapshot(root)
    with pytest.raises(CheckpointError, match=reason):
        save(root, 30, parts, {})
    assert snapshot(root) == before


def test_facts_step_samples_and_versions_are_kept(tmp_path):
    folder = save(tmp_path, 3, [], {}, facts={"seed": 1, "data": "abc"}, consumed_samples=24)
    reader = open_checkpoint(folder)
    assert (reader.step, reader.consumed_samples, reader.facts) == (3, 24, {"seed": 1, "data": "abc"})
    assert reader.manifest.versions["torch"] == version("torch")
