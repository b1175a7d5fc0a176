"""Transfer of weights into a network: each is matched, resized or reported, and none silently stays random."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from bionemo_core.config.schema import Choice, Restore
from bionemo_core.errors import ArtefactError, CheckpointError, ConfigError
from bionemo_core.interop.stored import AbsentParts, InMemoryTensors, ModelSpec, StoredModel
from bionemo_core.parallel.groups import start_groups
from bionemo_core.parallel.transfer import Vocabularies, transfer_weights

SPEC = ModelSpec(Choice("model", "mine"), Choice("tokenizer", "mine"))
WORDS, PLACES = "word_embeddings.weight", "position_embeddings.weight"
INITIAL = -1.0


class Tiny(nn.Module):
    """A network of a word table, a position table, a layer and a buffer, all filled with one value."""

    def __init__(self, words: int = 8, places: int | None = 6) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(words, 2)
        self.position_embeddings = None if places is None else nn.Embedding(places, 2)
        self.layer = nn.Linear(2, 3)
        self.register_buffer("scale", torch.zeros(1))
        self.register_buffer("scratch", torch.zeros(1), persistent=False)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.fill_(INITIAL)


def stored(tensors: dict[str, torch.Tensor], format_: str = "nemo", **more: object) -> StoredModel:
    return StoredModel("there", format_, SPEC, InMemoryTensors(tensors), **more)


def source(**changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor | None] = {
        WORDS: torch.arange(16.0).view(8, 2),
        PLACES: torch.arange(12.0).view(6, 2),
        "layer.weight": torch.ones(3, 2),
        "layer.bias": torch.ones(3),
        "scale": torch.tensor([5.0]),
    }
    tensors |= {name.replace("__", "."): tensor for name, tensor in changes.items()}
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


def fit(network: nn.Module, model: StoredModel, restore: Restore = Restore(), **sizes: int) -> object:  # noqa: B008
    return transfer_weights(network, start_groups(), model, restore, Vocabularies(**sizes))


def test_every_tensor_matches() -> None:
    network = Tiny()
    report = fit(network, stored(source()))
    assert report.complete and len(report.matched) == 5 and not report.resized
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, source()[name])
    assert "5 tensors matched, 0 resized, 0 missing, 0 unexpected; from there" in report.text()


def test_a_missing_tensor_is_refused_by_name_and_nothing_is_changed() -> None:
    network = Tiny()
    with pytest.raises(ArtefactError, match=r"Missing: layer.bias; unexpected: none.*Or set restore.strict=false"):
        fit(network, stored(source(layer__bias=None)))
    assert all((parameter == INITIAL).all() for parameter in network.parameters())


def test_an_unexpected_tensor_is_refused_by_name() -> None:
    with pytest.raises(ArtefactError, match=r"unexpected: other.weight, theirs"):
        fit(Tiny(), stored(source(other__weight=torch.ones(1)), unexpected=("theirs",)))


def test_a_run_that_does_not_fit_is_a_checkpoint_error() -> None:
    with pytest.raises(CheckpointError, match=r"layer.bias"):
        fit(Tiny(), stored(source(layer__bias=None), format_="run"))


def test_a_load_that_is_not_strict_lists_what_it_left_out() -> None:
    network = Tiny()
    model = stored(source(layer__bias=None, other=torch.ones(1)))
    report = fit(network, model, Restore(strict=False))
    assert report.missing == ("layer.bias",) and report.unexpected == ("other",)
    assert (network.layer.bias == INITIAL).all() and (network.layer.weight == 1).all()
    assert report.facts()["missing"] == ["layer.bias"] and "layer.bias" in report.text()


def test_a_source_of_which_nothing_fits_is_always_refused() -> None:
    nothing = stored({f"theirs.{name}": tensor for name, tensor in source().items()})
    for rules in (Restore(strict=False), Restore(strict=False, positions="restart")):
        network = Tiny()
        with pytest.raises(ArtefactError, match=r"None of its tensors fits.*whatever restore.strict is") as refusal:
            fit(network, nothing, rules)
        assert "Or set restore.strict" not in str(refusal.value)
        assert all((parameter == INITIAL).all() for parameter in network.parameters())


def test_absent_parts_are_missing_and_refused_unless_the_caller_allows_them() -> None:
    absent = AbsentParts(("layer.",), "theirs has no layer")
    model = stored(source(), absent=absent)  # a checkpoint may hold random values of a part that its source lacked
    with pytest.raises(ArtefactError, match=r"Missing: layer.weight, layer.bias.*theirs has no layer"):
        fit(Tiny(), model)
    network = Tiny()
    report = transfer_weights(network, start_groups(), model, Restore(), Vocabularies(), absent_allowed=True)
    assert set(report.missing) == set(report.unfilled) == {"layer.weight", "layer.bias"}
    assert (network.layer.weight == INITIAL).all() and "theirs has no layer" in report.text()
    with pytest.raises(ArtefactError, match=r"Missing: scale;"):
        lacking = stored(source(scale=None), absent=absent)
        transfer_weights(Tiny(), start_groups(), lacking, Restore(), Vocabularies(), absent_allowed=True)


def test_restarted_positions_are_not_filled() -> None:
    report = fit(Tiny(places=9), stored(source()), Restore(positions="restart"))
    assert report.unfilled == (PLACES,) and not report.missing


@pytest.mark.parametrize("strict", [True, False])
def test_another_shape_is_always_refused(strict: bool) -> None:
    model = stored(source(layer__weight=torch.ones(4, 2)))
    with pytest.raises(ArtefactError, match=r"layer.weight \[4, 2\] instead of \[3, 2\]"):
        fit(Tiny(), model, Restore(strict=strict))


def test_tables_that_differ_in_padding_rows_only() -> None:
    network = Tiny(words=12)
    report = fit(network, stored(source()), wanted=5, stored=5)
    assert report.resized[0].method == "padding"
    assert torch.equal(network.word_embeddings.weight[:8], source()[WORDS])
    assert (network.word_embeddings.weight[8:] == 0).all()


def test_another_vocabulary_needs_a_method() -> None:
    with pytest.raises(ArtefactError, match=r"word_embeddings.weight .* for a vocabulary of 6 \(restore.vocabulary"):
        fit(Tiny(words=12), stored(source()), wanted=11, stored=6)


def test_a_vocabulary_tiled_as_v1_did() -> None:
    network = Tiny(words=20)
    report = fit(network, stored(source()), Restore(vocabulary="tile"), wanted=19, stored=6)
    table = source()[WORDS]
    assert torch.equal(network.word_embeddings.weight, torch.cat([table, table, table[:4]]))
    assert report.resized[0].method == "tile"


def test_a_vocabulary_with_new_rows_at_the_mean() -> None:
    network = Tiny(words=12)
    fit(network, stored(source()), Restore(vocabulary="mean"), wanted=9, stored=6)
    table = source()[WORDS]
    assert torch.equal(network.word_embeddings.weight[:6], table[:6])
    assert torch.equal(network.word_embeddings.weight[6:9], table[:6].mean(0).expand(3, 2))
    assert (network.word_embeddings.weight[9:] == 0).all()


def test_a_smaller_vocabulary_is_cut_by_either() -> None:
    for method in ("tile", "mean"):
        network = Tiny(words=4)
        fit(network, stored(source()), Restore(vocabulary=method), wanted=4, stored=8)
        assert torch.equal(network.word_embeddings.weight, source()[WORDS][:4])


@pytest.mark.parametrize(
    ("method", "rows", "expected"),
    [
        ("tile", 9, [0, 1, 2, 3, 4, 5, 0, 1, 2]),
        ("tile", 4, [0, 1, 2, 3]),
        ("cut", 4, [0, 1, 2, 3]),
        ("interpolate", 11, [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5]),
        ("interpolate", 3, [0, 2.5, 5]),
    ],
)
def test_positions_of_another_length(method: str, rows: int, expected: list[float]) -> None:
    network = Tiny(places=rows)
    report = fit(network, stored(source()), Restore(positions=method))
    wanted = torch.tensor(expected).unsqueeze(1) * 2 + torch.tensor([0.0, 1.0])
    assert torch.allclose(network.position_embeddings.weight, wanted)
    assert report.resized[0].method == method


def test_cut_cannot_lengthen_positions() -> None:
    for restore in (Restore(positions="cut"), Restore()):
        with pytest.raises(ArtefactError, match=r"position_embeddings.weight \[6, 2\] instead of \[9, 2\]"):
            fit(Tiny(places=9), stored(source()), restore)


def test_positions_that_restart_and_positions_of_another_kind() -> None:
    network = Tiny(places=9)
    report = fit(network, stored(source()), Restore(positions="restart"))
    assert (network.position_embeddings.weight == INITIAL).all() and report.resized[0].method == "restart"
    without = fit(Tiny(places=None), stored(source()), Restore(positions="restart"))
    assert without.complete and without.resized[0].wanted == ()
    network = Tiny()
    onto = fit(network, stored(source(position_embeddings__weight=None)), Restore(positions="restart"))
    assert onto.complete and (network.position_embeddings.weight == INITIAL).all()
    with pytest.raises(ArtefactError, match=r"unexpected: position_embeddings.weight"):
        fit(Tiny(places=None), stored(source()))


def test_an_unknown_method_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"restore.positions: got 'strech'"):
        fit(Tiny(), stored(source()), Restore(positions="strech"))


@pytest.mark.parametrize("method", ["", "tile"])
def test_each_tensor_parallel_rank_reads_its_part(method: str) -> None:
    table = source()[WORDS] if not method else torch.cat([source()[WORDS], source()[WORDS][:4]])
    for rank in range(2):
        network = Tiny(words=len(table) // 2)
        network.word_embeddings.weight.tensor_model_parallel = True
        network.word_embeddings.weight.partition_dim = 0
        groups = SimpleNamespace(tensor_rank=rank, tensor_size=2, data_rank=0, data_size=1)
        sizes = Vocabularies(wanted=len(table), stored=8)
        report = transfer_weights(network, groups, stored(source()), Restore(vocabulary=method or None), sizes)
        assert report.complete
        assert torch.equal(network.word_embeddings.weight, table.chunk(2)[rank])
        assert torch.equal(network.layer.weight, source()["layer.weight"]), "unsplit tensors are whole"
