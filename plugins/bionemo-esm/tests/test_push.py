"""A converted folder on its way to a stand-in for the hub: what arrives, what is refused, and no token anywhere."""

from pathlib import Path

import pytest
from hub_server import SIGNATURE, TOKEN, Hub, assert_token_nowhere

from bionemo_core import cli

transformers = pytest.importorskip("transformers")
pytest.importorskip("huggingface_hub")

# Of huggingface_hub, when it sends a large file without Xet.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")

NAME = "some-lab/small-esm2"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("theirs")
    sizes = {"hidden_size": 40, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 80}
    ids = {"vocab_size": 33, "mask_token_id": 32, "pad_token_id": 1}
    config = transformers.EsmConfig(position_embedding_type="rotary", max_position_embeddings=66, **sizes, **ids)
    transformers.EsmForMaskedLM(config).save_pretrained(folder)
    return folder


def push(model: Path, target: Path, *more: str) -> int:
    arguments = ("task=convert", f"restore_from_path={model}", "task.to=huggingface", f"task.output={target}")
    return cli.main([*arguments, f"task.push_to={NAME}", *more])


def test_every_file_arrives_in_one_commit(
    hub: Hub, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert push(model, tmp_path / "mine") == 0
    repository = hub.repositories[NAME]
    assert repository["private"] and hub.commits == 1 and not hub.unauthorised
    assert repository["files"] == {path.name: path.read_bytes() for path in (tmp_path / "mine").iterdir()}
    assert {"README.md", "config.json", "model.safetensors", "vocab.txt"} <= set(repository["files"])
    assert f"from_pretrained('{NAME}')" in repository["files"]["README.md"].decode()
    said = assert_token_nowhere(tmp_path, capsys)
    assert f"pushed  {hub.url}/{NAME} (private)" in said


def test_in_public_if_asked(hub: Hub, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert push(model, tmp_path / "mine", "task.push_private=false") == 0
    assert not hub.repositories[NAME]["private"]
    assert f"{NAME} (public)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("private", "files", "said"),
    [(True, {"config.json": b"{}"}, "other files already (config.json)"), (False, {}, "exists and is public")],
)
def test_another_repository_stays_as_it_is(
    hub: Hub,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    private: bool,
    files: dict[str, bytes],
    said: str,
) -> None:
    hub.repositories[NAME] = {"private": private, "files": dict(files)}
    assert push(model, tmp_path / "mine") == 2
    assert said in assert_token_nowhere(tmp_path, capsys)
    assert hub.repositories[NAME]["files"] == files and not hub.commits
    assert not (tmp_path / "mine").exists(), "refused before the conversion"


def test_an_empty_private_repository_is_used(hub: Hub, model: Path, tmp_path: Path) -> None:
    hub.repositories[NAME] = {"private": True, "files": {}}
    assert push(model, tmp_path / "mine") == 0
    assert "README.md" in hub.repositories[NAME]["files"]


def test_without_a_token(
    hub: Hub, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert push(model, tmp_path / "mine") == 2
    said = capsys.readouterr().err
    assert "there is no token" in said and "HF_TOKEN" in said and not hub.requests
    (tmp_path / "no_login").write_text(TOKEN)  # the hint: log in
    assert push(model, tmp_path / "mine") == 0


def test_a_token_that_the_hub_does_not_accept(
    hub: Hub, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = "hf_wrongButAlsoSecret"
    monkeypatch.setenv("HF_TOKEN", wrong)
    assert push(model, tmp_path / "mine") == 8
    said = capsys.readouterr().err
    assert "status 401" in said and "does not accept the token" in said and wrong not in said
    assert not (tmp_path / "mine").exists()


def test_a_token_that_may_only_read(hub: Hub, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub.forbidden = True
    assert push(model, tmp_path / "mine") == 8
    said = assert_token_nowhere(tmp_path, capsys)
    assert "status 403" in said and "write access to repositories of some-lab" in said
    assert f"hf upload {NAME} {tmp_path / 'mine'}" in said and (tmp_path / "mine" / "README.md").is_file()


def test_a_large_file_that_the_storage_refuses(
    hub: Hub, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.full = True
    assert push(model, tmp_path / "mine") == 8
    said = assert_token_nowhere(tmp_path, capsys)
    assert "Error while uploading 'model.safetensors'" in said and "Quota exceeded" in said and SIGNATURE not in said
    assert not hub.commits and (tmp_path / "mine" / "README.md").is_file()


def test_without_a_network(
    hub: Hub, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert push(model, tmp_path / "mine") == 8
    assert "http://127.0.0.1:9" in assert_token_nowhere(tmp_path, capsys)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert push(model, tmp_path / "mine") == 2
    assert "HF_HUB_OFFLINE forbids" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("task.push_to=small",), "expected ORG/NAME"),
        (("task.to=artefact",), "Set task.to=huggingface"),
    ],
)
def test_what_cannot_be_pushed(
    hub: Hub, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], said: str
) -> None:
    assert push(model, tmp_path / "mine", *more) == 2
    assert said in capsys.readouterr().err and not hub.requests
