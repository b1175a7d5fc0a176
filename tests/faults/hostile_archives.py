"""Archives, pickles and texts made to do harm, and the harmless archive that they are made from.

The harmless archive opens, and each row asserts that first: else a change to it would be refused for what it lacks.
"""

import gzip
import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import yaml

from bionemo_core.builtin import load_registry
from bionemo_core.interop.connector import OurModel
from bionemo_core.interop.huggingface import write_huggingface
from bionemo_core.interop.nemo_models import PROTEIN_PIECES
from bionemo_core.interop.sentencepiece_model import write_model
from bionemo_core.models.load import open_model
from bionemo_core.models.locate import complete_choice
from bionemo_core.models.named_weights import network_tensors
from bionemo_core.protocols import BuildContext
from bionemo_esm.connector import EsmHuggingFace, nemo_keys

CONFIG: dict[str, Any] = {
    "num_layers": 1,
    "hidden_size": 8,
    "ffn_hidden_size": 16,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
    "bert_binary_head": False,
    "tokenizer": {"library": "sentencepiece", "model": f"nemo:{'0' * 32}_p.model"},
    "target": "bionemo.model.protein.esm1nv.esm1nv_model.ESM1nvModel",
}

Entry = tuple[str | tarfile.TarInfo, bytes]


def saved(value: object) -> bytes:
    """What `torch.save` makes of it."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@lru_cache
def weights() -> bytes:
    """The weights of the small ESM-1nv that `CONFIG` describes."""
    sizes = {key: CONFIG[key] for key in ("num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads")}
    _, _, tokenizer, tensors = build("esm1nv", "esm1nv", sizes | {"seq_length": 16})
    return saved(nemo_keys(1).to_theirs(tensors, tokenizer.vocab_size))


def harmless(**changes: Any) -> list[Entry]:
    """The members of an archive of a small ESM-1nv: configuration, tokenizer, weights."""
    config = yaml.safe_dump(CONFIG | changes).encode()
    pieces = write_model(PROTEIN_PIECES, pad_id=3)
    return [("./model_config.yaml", config), (f"./{'0' * 32}_p.model", pieces), ("./model_weights.ckpt", weights())]


def build(model: str, tokenizer: str, sizes: dict[str, Any]) -> tuple[str, dict[str, Any], Any, dict[str, Any]]:
    """Name, parameters, tokenizer and tensors of a small model of bionemo-esm."""
    registry = load_registry()
    choice = complete_choice("model", model, sizes, "bionemo-esm", registry)
    pieces = registry.build(complete_choice("tokenizer", tokenizer, {}, "bionemo-esm", registry))
    network = registry.build(choice, tokenizer=pieces, context=BuildContext()).network
    return choice.name, choice.params, pieces, network_tensors(network)


def huggingface_folder(path: Path) -> Path:
    """A Hugging Face folder of a small ESM-2."""
    sizes = {"num_layers": 1, "hidden_size": 8, "num_attention_heads": 2, "ffn_hidden_size": 16, "seq_length": 16}
    write_huggingface(path, EsmHuggingFace().write(OurModel(*build("esm2_8m", "esm2", sizes))))
    return path


def assert_opens(path: Path) -> None:
    """Check that a model opens, with every tensor in its place."""
    assert open_model(str(path), load_registry()).report.complete


def tar(path: Path, entries: list[Entry], packed: bool = False) -> Path:
    """An archive of these members, in this order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as out:
        for name, content in entries:
            member = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            if member.isreg():
                member.size = len(content)
            out.addfile(member, io.BytesIO(content) if member.isreg() else None)
    path.write_bytes(gzip.compress(buffer.getvalue()) if packed else buffer.getvalue())
    return path


def special(name: str, kind: bytes, link: str = "") -> Entry:
    """A member that is no regular file."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member, b""


def sized_header(path: Path, kind: bytes, size: int) -> Path:
    """An archive whose first header asks for `size` bytes of a long name or of extended attributes."""
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = kind, size
    with gzip.open(path, "wb", compresslevel=9) as out:
        out.write(member.tobuf(tarfile.GNU_FORMAT))
        for _ in range(2**27 // 2**20):
            out.write(b"a" * 2**20)
    return path


class Calls:
    """Pickles to a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def torch_file(program: bytes, folder: str = "archive") -> bytes:
    """A torch file whose pickle is `program`."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as out:
        out.writestr(f"{folder}/data.pkl", program)
        out.writestr(f"{folder}/version", b"3\n")
    return buffer.getvalue()


def programs(canary: Path) -> dict[str, bytes]:
    """Pickles that would make the file `canary`, by the way in which they do."""
    import os
    import subprocess

    touch = f"touch {canary}"
    by_text = f"__import__('pathlib').Path({str(canary)!r}).touch()"
    return {
        "os.system": pickle.dumps(Calls(os.system, touch), protocol=2),
        "subprocess": pickle.dumps(Calls(subprocess.call, ["touch", str(canary)]), protocol=2),
        "eval": pickle.dumps(Calls(eval, by_text), protocol=2),
        "exec": pickle.dumps(Calls(exec, by_text), protocol=2),
        "pathlib": pickle.dumps(Calls(Path.touch, canary), protocol=2),
        "protocol 0": pickle.dumps(Calls(os.system, touch), protocol=0),
        "protocol 4": pickle.dumps(Calls(os.system, touch), protocol=4),
        "protocol 5": pickle.dumps(Calls(os.system, touch), protocol=5),
        "in a state dict": pickle.dumps({"model.lm_head.bias": Calls(os.system, touch)}, protocol=2),
        "as a key": pickle.dumps({Calls(os.mkdir, str(canary)): 1}, protocol=2),
        "INST": f"(S'{touch}'\nios\nsystem\n.".encode(),
        "OBJ": f"(cos\nsystem\nS'{touch}'\no.".encode(),
        "torch's own eval": f"ctorch._C._jit_tree_views\n_x\n(S'{touch}'\ntR.".encode(),
        "getattr": f"c__builtin__\ngetattr\n(cos\npath\nS'os'\ntR(S'{touch}'\ntR.".encode(),
        "an extension": b"\x82\x01.",
        "allowed, then a state": (f"ccollections\nOrderedDict\n)R(S'x'\ncos\nsystem\n(S'{touch}'\ntRsb.".encode()),
    }


def inflated_tensor() -> bytes:
    """A torch file with a tensor of 2**40 numbers over the bytes of one."""
    return saved({"model.lm_head.bias": torch.zeros(1).expand(2**20, 2**20)})


def lying_sizes() -> bytes:
    """A safetensors header that promises more than any file holds."""
    header = b'{"x":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'
    return struct.pack("<Q", len(header)) + header
