"""MegaMolBART and MolMIM out to v1 archives and back, bit for bit."""

from pathlib import Path

import pytest
import torch

from bionemo_core.builtin import load_registry
from bionemo_core.errors import ArtefactError, ConfigError
from bionemo_core.interop.connector import ForeignModel, OurModel
from bionemo_core.interop.foreign_config import ForeignConfig
from bionemo_core.interop.nemo import read_nemo, write_nemo
from bionemo_core.models.load import open_model
from bionemo_core.models.locate import complete_choice
from bionemo_core.models.named_weights import network_tensors
from bionemo_core.protocols import BuildContext
from bionemo_molbart.connector import MegaMolBartNemo, MolMimNemo
from bionemo_molbart.tokenizer import molbart_tokenizer

ARCHIVES = {
    "A/megamolbart/megamolbart.nemo": MegaMolBartNemo,
    "A_old/megamolbart/megamolbart.nemo": MegaMolBartNemo,
    "A/molmim/molmim.nemo": MolMimNemo,
    "A/molmim_cond_gaussian/molmim_cond_gaussian.nemo": MolMimNemo,
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_v1_archive_comes_back_bit_for_bit(realdata: Path, tmp_path: Path, name: str) -> None:
    path, connector = realdata / "nemo_v1" / name, ARCHIVES[name]()
    opened = open_model(str(path), load_registry())
    assert opened.report.complete
    tensors, choice = network_tensors(opened.module.network), opened.spec.model
    write_nemo(tmp_path / "new.nemo", connector.write(OurModel(choice.name, choice.params, opened.tokenizer, tensors)))
    source, again = read_nemo(path), read_nemo(tmp_path / "new.nemo")
    assert again.tensors.keys() == source.tensors.keys()
    for key, tensor in source.tensors.items():
        assert torch.equal(again.tensors[key], tensor), key
    # The vocabulary is written from our tokenizer, and is theirs to the letter.
    assert sorted(again.files.values()) == sorted(source.files.values())
    reopened = open_model(str(tmp_path / "new.nemo"), load_registry())
    assert reopened.spec.model.params == choice.params
    for key, tensor in network_tensors(reopened.module.network).items():
        assert torch.equal(tensor, tensors[key]), key


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["hiddens"]["transform"]["q_z_given_x"].update(cls_name="vq"), "cls_name"),
        (lambda c: c["hiddens"].update(transform=[]), "transform"),
        (lambda c: c["hiddens"]["transform"].update(second={"cls_name": "cond_gaussian"}), "one entry"),
        (lambda c: c["encoder"].update(arch="transformer"), "arch"),
        (lambda c: c["tokenizer"].update(library="sentencepiece"), "library"),
    ],
)
def test_an_archive_that_computes_something_else_is_refused(realdata: Path, change: object, said: str) -> None:
    source = read_nemo(realdata / "nemo_v1/A/molmim/molmim.nemo")
    change(source.config.values)
    with pytest.raises(ArtefactError, match=said):
        MolMimNemo().read(ForeignModel(ForeignConfig(source.config.values, "here"), source.tensors, source.files))


# Each class of v1 gets all keys of its section but cls_name, and refuses those that it does not know.
OF_ANY_TRANSFORM = {"cls_name", "hidden_size", "ffn_hidden_size", "min_logvar", "init_method_std"}
ARGUMENTS = {
    "cond_gaussian": OF_ANY_TRANSFORM,
    "sampled_var_cond_gaussian": OF_ANY_TRANSFORM | {"max_logvar", "map_var_to_hiddens"},
    "interp_var_cond_gaussian": OF_ANY_TRANSFORM | {"map_coef_to_hiddens"},
}


@pytest.mark.parametrize("transform", ARGUMENTS)
def test_a_written_transform_has_the_arguments_of_its_class(transform: str, tmp_path: Path) -> None:
    latent = {"hidden_transform": transform, "min_logvar": -4.0, "tokens_loss_weight": 0.5, "hidden_loss": "vae"}
    sizes = {"num_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "ffn_hidden_size": 16, "seq_length": 32}
    registry = load_registry()
    choice = complete_choice("model", "molmim", {**sizes, **latent, "mask_prob": 0.0}, "bionemo-molbart", registry)
    tokenizer = molbart_tokenizer()
    network = registry.build(choice, tokenizer=tokenizer, context=BuildContext()).network
    written = MolMimNemo().write(OurModel("molmim", choice.params, tokenizer, network_tensors(network)))
    section = written.config.values["hiddens"]["transform"]["q_z_given_x"]
    assert section.keys() <= ARGUMENTS[transform]
    # v1 builds a network of its own for these unless told otherwise.
    assert section.get("map_var_to_hiddens", False) is section.get("map_coef_to_hiddens", False) is False
    assert {key for key in ARGUMENTS[transform] if key.startswith("map_")} <= section.keys()
    write_nemo(tmp_path / "x.nemo", written)
    again = open_model(str(tmp_path / "x.nemo"), registry)
    read = {key: value for key, value in choice.params.items() if key != "ffn_hidden_size"}
    assert {key: again.spec.model.params[key] for key in read} == read


def test_a_list_of_transforms_is_read_as_well(realdata: Path) -> None:
    source = read_nemo(realdata / "nemo_v1/A/molmim/molmim.nemo")
    hiddens = source.config.values["hiddens"]
    hiddens["transform"] = [hiddens["transform"]["q_z_given_x"]]
    assert MolMimNemo().read(source).params["hidden_transform"] == "sampled_var_cond_gaussian"


def test_a_vocabulary_of_its_own_does_not_go_out(realdata: Path) -> None:
    opened = open_model(str(realdata / "nemo_v1/A/molmim/molmim.nemo"), load_registry())
    own = type(opened.tokenizer)((*opened.tokenizer.pieces, "[Xx]"))
    model = OurModel("molmim", opened.spec.model.params, own, network_tensors(opened.module.network))
    with pytest.raises(ConfigError, match="vocabulary"):
        MolMimNemo().write(model)
