"""M3: configurations that would call, resolve or swell: none does, no environment value appears, status 4."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hostile_archives import CONFIG, harmless, tar
from matrix import row

from bionemo_core.builtin import load_registry
from bionemo_core.errors import ArtefactError
from bionemo_core.models.load import open_model

pytestmark = pytest.mark.faults

SECRET = "kept-to-itself-4711"
TAGS = (
    "!!python/object/apply:os.system ['touch {canary}']",
    "!!python/object/new:os.system ['touch {canary}']",
    "!!python/object/apply:subprocess.call [['touch', '{canary}']]",
    "!!python/name:os.system ''",
    "!!python/module:os ''",
    "!!python/object:os.stat_result {{}}",
    "!!python/tuple [1, 2]",
    "!!binary 'not base64 \\x00'",
    "!mine 1",
)


def text(**changes: object) -> str:
    return yaml.safe_dump(CONFIG | changes)


def texts(canary: Path) -> dict[str, str]:
    """YAML by what it tries."""
    made = {f"tag {tag[:34]}": f"{text()}extra: {tag.format(canary=canary)}\n" for tag in TAGS}
    made |= {
        f"_target_ in {where}": text(**{where: {"_target_": "os.system", "command": f"touch {canary}"}})
        for where in ("optim", "tokenizer", "data", "encoder")
    }
    made["_target_ at the top"] = text(_target_="os.system", command=f"touch {canary}")
    made["_target_ in a list"] = text(callbacks=[{"_target_": "os.system", "_args_": [f"touch {canary}"]}])
    made["_partial_"] = text(_partial_=True)
    made |= {
        f"{value} as {key}": text(**{key: value})
        for key, value in (
            ("num_layers", "${oc.env:BIONEMO_SECRET}"),
            ("hidden_size", "${oc.env:BIONEMO_SECRET,8}"),
            ("dataset_path", "${oc.env:BIONEMO_SECRET}"),
            ("target", "${oc.env:BIONEMO_SECRET}"),
            ("ffn_hidden_size", "${multiply:4,${.hidden_size}}"),
            ("x", "${oc.decode:'!!python/name:os.system'}"),
            ("y", ["${oc.create:{a: 1}}"]),
        )
    }
    made["${...} as a key"] = text(**{"${oc.env:BIONEMO_SECRET}": 1})
    laughs = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    made["a billion laughs"] = text() + "\n".join(laughs) + "\n"
    made["contains itself"] = text() + "loop: &loop [*loop]\n"
    made["deep"] = text() + "deep: " + "[" * 5_000 + "]" * 5_000 + "\n"
    made["large"] = text() + "# " + "x" * 2**23 + "\n"
    made["a list"] = "- 1\n- 2\n"
    made["two documents"] = text() + "---\n" + text()
    made["not UTF-8"] = "\udcff: 1\n"
    made["sizes beyond memory"] = text(hidden_size=2**40)
    made["sizes that are texts"] = text(num_layers="os.system('x')")
    made["a size that is no number"] = text(hidden_size=float("nan"))
    return made


def test_m3_yaml_is_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIONEMO_SECRET", SECRET)
    canary = tmp_path / "canary"
    made = texts(canary)
    matrix = row("M3", subset=len(made), full=len(made))
    for name, content in list(made.items())[: matrix.n]:
        with matrix.case(name):
            config = content.encode("utf-8", errors="surrogateescape")
            path = tar(tmp_path / "x.nemo", [("./model_config.yaml", config), *harmless()[1:]])
            refused(path)
            assert not canary.exists(), "it ran"
    matrix.check()


def refused(path: Path) -> None:
    with pytest.raises(ArtefactError) as refusal:
        open_model(str(path), load_registry())
    assert refusal.value.exit_status == 4
    assert SECRET not in str(refusal.value)
    assert "weights" not in str(refusal.value).partition("model_config.yaml")[0], (
        "it is the configuration that is refused"
    )


HUGGING_FACE: dict[str, Callable[[dict[str, object]], object]] = {
    "sizes beyond memory": lambda config: config | {"hidden_size": 2**40},
    "negative": lambda config: config | {"num_hidden_layers": -1},
    "a text": lambda config: config | {"num_hidden_layers": "${oc.env:BIONEMO_SECRET}"},
    "a stranger's class": lambda config: config | {"model_type": "custom", "auto_map": {"AutoModel": "evil--x.Model"}},
    "a list": lambda config: [config],
}


@pytest.mark.parametrize("kind", HUGGING_FACE)
def test_m3_config_json_is_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    from safetensors.torch import save_file
    from torch import zeros

    monkeypatch.setenv("BIONEMO_SECRET", SECRET)
    config: dict[str, object] = {"model_type": "esm", "hidden_size": 8, "num_hidden_layers": 1, "vocab_size": 33}
    config |= {"num_attention_heads": 2, "intermediate_size": 16, "mask_token_id": 32, "pad_token_id": 1}
    (tmp_path / "config.json").write_text(json.dumps(HUGGING_FACE[kind](config)))
    save_file({"x": zeros(2)}, tmp_path / "model.safetensors")
    refused(tmp_path)
