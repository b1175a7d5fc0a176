"""M3: configurations that would call, resolve or swell: none does, no environment value appears, status 4.

Each is refused for what it tries: unchanged, the configurations open.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hostile_archives import CONFIG, assert_opens, harmless, huggingface_folder, tar
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
    "!!set {{1, 2}}",
    "!mine 1",
)
# What the refusal says, by the first words of the attack's name.
SAID = {
    "tag !!set": "a value of type set is not allowed",
    "tag !!binary": "a value of type bytes is not allowed",
    "tag": "could not determine a constructor for the tag",
    "_target_": "key '_(target|args)_' is not allowed",
    "_partial_": "key '_partial_' is not allowed",
    "${...} as a key": "key '.*' is not allowed",
    "${": "interpolations are not resolved here",
    "['${": "interpolations are not resolved here",
    "a billion laughs": "aliases expanded",
    "contains itself": "alias .loop refers to an unknown or unfinished node",
    "deep": "more than 40 levels",
    "large": "bytes, expected at most",
    "a list": "expected a mapping",
    "two documents": "expected a single document",
    "not UTF-8": "codec can't decode",
    "size": "expected a whole number",
    "a size": "expected a whole number",
}


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
    assert_opens(tar(tmp_path / "x.nemo", [("./model_config.yaml", text().encode()), *harmless()[1:]]))
    made = texts(canary)
    matrix = row("M3", subset=len(made), full=len(made))
    for name, content in list(made.items())[: matrix.n]:
        with matrix.case(name):
            config = content.encode("utf-8", errors="surrogateescape")
            path = tar(tmp_path / "x.nemo", [("./model_config.yaml", config), *harmless()[1:]])
            refused(path, next(said for words, said in SAID.items() if name.startswith(words)))
            assert not canary.exists(), "it ran"
    matrix.check()


def refused(path: Path, said: str) -> None:
    with pytest.raises(ArtefactError, match=said) as refusal:
        open_model(str(path), load_registry())
    assert refusal.value.exit_status == 4
    assert SECRET not in str(refusal.value)
    assert "weights" not in str(refusal.value).partition("model_config.yaml")[0], (
        "it is the configuration that is refused"
    )


HUGGING_FACE: dict[str, tuple[Callable[[dict[str, object]], object], str]] = {
    "sizes beyond memory": (lambda config: config | {"hidden_size": 2**40}, "hidden_size is '1099511627776'"),
    "negative": (lambda config: config | {"num_hidden_layers": -1}, "num_hidden_layers is '-1'"),
    "a text": (
        lambda config: config | {"num_hidden_layers": "${oc.env:BIONEMO_SECRET}"},
        "num_hidden_layers is '.*', expected a whole number",
    ),
    "a stranger's class": (
        lambda config: config | {"model_type": "custom", "auto_map": {"AutoModel": "evil--x.Model"}},
        "no installed plugin recognises|computed by code in its own folder",
    ),
    "a list": (lambda config: [config], "expected .*mapping|got list|got a list"),
}


@pytest.mark.parametrize("kind", HUGGING_FACE)
def test_m3_config_json_is_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setenv("BIONEMO_SECRET", SECRET)
    change, said = HUGGING_FACE[kind]
    folder = huggingface_folder(tmp_path / "hf")
    assert_opens(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(change(config)))
    refused(folder, said)
