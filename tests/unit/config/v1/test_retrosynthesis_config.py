"""v1's configuration of MegaMolBARTRetro, as a file, means what today's keys mean."""

from dataclasses import replace

import pytest

from bionemo_core.config.v1.rewriting import rewrite_command_line
from bionemo_core.data.batches.pair_objective import learn_pairs
from bionemo_core.data.pair_records import split_pair
from bionemo_core.errors import ConfigError
from bionemo_core.protocols import BuildContext
from bionemo_core.tasks.training_parts import changed_values

pytest.importorskip("bionemo_molbart")

V1 = """\
name: MegaMolBARTRetro
do_training: true
do_testing: true
restore_from_path: null
target: bionemo.model.molecule.megamolbart.MegaMolBARTRetroModel
trainer: {devices: 1, num_nodes: 1, precision: 32, max_epochs: null, max_steps: 20000, val_check_interval: 500}
exp_manager:
  create_wandb_logger: false
  checkpoint_callback_params: {monitor: val_loss, save_top_k: 10, mode: min}
model:
  micro_batch_size: 256
  seq_length: 512
  num_layers: 6
  hidden_size: 512
  num_attention_heads: 8
  downstream_task: {restore_from_path: megamolbart.nemo, outputs: []}
  data:
    num_workers: 8
    dataset_path: FOLDER
    dataset: {train: data, val: data, test: data}
    input_name: products
    target_name: reactants
    canonicalize_encoder_input: true
    encoder_augment: false
    encoder_mask: false
    decoder_mask: false
    mask_prob: 0.0
    span_lambda: 3.0
    data_impl: csv_fields_mmap
    data_impl_kwargs:
      csv_fields_mmap: {newline_int: 10, header_lines: 1, data_sep: ',', data_fields: {products: 3, reactants: 2}}
  optim:
    name: fused_adam
    lr: 0.01
    betas: [0.9, 0.99]
    sched: {name: NoamAnnealing, d_model: '${model.hidden_size}', warmup_steps: 5000, min_lr: 1.0e-6}
"""

TODAY = (
    *("name=MegaMolBARTRetro", "task.do_testing=true", "restore_from_path=megamolbart.nemo"),
    *("trainer.precision=32", "trainer.max_steps=20000", "trainer.val_check_interval=500"),
    *("checkpoint.mode=min", "batch.micro_batch_size=256", "batch.num_workers=8", "model.seq_length=512"),
    *("model.canonicalize_encoder_input=true", "model.encoder_augment=false", "model.encoder_mask=false"),
    *("model.mask_prob=0.0", "data=pairs", "data.source_col=3", "data.target_col=2"),
    *("data.train=data", "data.val=data", "data.test=data"),
    *("optim=adamw", "optim.lr=0.01", "optim.betas=[0.9,0.99]"),
    *("scheduler=noam", "scheduler.d_model=512", "scheduler.warmup_steps=5000", "scheduler.min_lr=1e-6"),
)


def test_the_file_and_todays_keys_are_one_run(spec_of, registry, tmp_path):
    for split, product in (("train", "CC(=O)OC"), ("val", "CNC(C)=O"), ("test", "CCOC")):
        (tmp_path / "data" / split).mkdir(parents=True)
        table = f"reaction_type,set,reactants,products\n<RX_1>,{split},CO.C[C:1](=O)O,{product}\n"
        (tmp_path / "data" / split / "data.csv").write_text(table)
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "retro.yaml").write_text(V1.replace("FOLDER", str(tmp_path / "data")))
    spec = spec_of("model=megamolbart", "+experiment=retro", folder=tmp_path)
    today = spec_of("model=megamolbart", *TODAY, f"data.dataset_path={tmp_path / 'data'}")
    assert spec == today and spec.data.name == "pairs"

    context = BuildContext(home=str(tmp_path / "home"))
    tokenizer = registry.build(spec.tokenizer, context=context)
    splits = registry.build(spec.data, tokenizer=tokenizer, context=context)
    texts = [[split_pair(one[row]) for row in range(len(one))] for one in (splits.train, splits.val, splits.test)]
    reactants = b"CC(=O)O.CO"
    assert texts == [[(b"COC(C)=O", reactants)], [(b"CNC(C)=O", reactants)], [(b"CCOC", reactants)]]

    # What asks for what pairs do anyway is no error; what asks for more is one.
    small = replace(spec.model, params={**spec.model.params, "num_layers": 1, "hidden_size": 32})
    module = registry.build(small, tokenizer=tokenizer, context=context)
    assert {"encoder_mask", "mask_prob"} <= set(changed_values(spec, registry))
    learn_pairs(module, splits, tokenizer, "megamolbart", changed_values(spec, registry))
    augmented = registry.build(small, tokenizer=tokenizer, context=context)
    with pytest.raises(ConfigError, match=r"^model\.encoder_augment: not used with data of pairs"):
        learn_pairs(augmented, splits, tokenizer, "megamolbart", {"encoder_augment": True, "encoder_mask": False})


def test_its_keys_on_the_command_line():
    fields = "model.data.data_impl_kwargs.csv_fields_mmap.data_fields"
    typed = [f"{fields}.products=3", f"{fields}.reactants=2", "model.data.dataset.train=x000"]
    rewritten = ["data.source_col=3", "data.target_col=2", "data.train=x000", "data=pairs"]
    for arguments in (typed, [*typed, "model.data.data_impl=csv_fields_mmap"], rewritten):
        assert rewrite_command_line(arguments)[0] == rewritten
    assert rewrite_command_line(["data=mine", typed[0]])[0] == ["data=mine", "data.source_col=3"]
    with pytest.raises(ConfigError, match="the source is the column of the products"):
        rewrite_command_line(["model.data.input_name=reactants"])
