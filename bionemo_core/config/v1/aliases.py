"""The table of v1 keys: the old key, what happens to it, and the new key. Data only; `rewriting` applies it.

`*` at the end of a key matches everything below it. The first matching line counts, and the result is looked up
again: `model.data.micro_batch_size` becomes `data.micro_batch_size` and then `batch.micro_batch_size`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from bionemo_core.errors import ConfigError


class Fate(StrEnum):
    """What happens to a v1 key."""

    MOVED = "moved"  # the value goes to another key
    CHOICE = "choice"  # the value names a component of a group
    SWITCH = "switch"  # true adds a logger, false removes it
    IGNORED = "ignored"  # has no effect here; a note says so
    REFUSED = "refused"  # is not supported and would change the result; an error unless the value is harmless


@dataclass(frozen=True)
class Alias:
    """One line of the table."""

    old: str
    fate: Fate
    new: str = ""
    note: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    """v1's words for a value, in lower case, and the words used here."""
    harmless: tuple[str, ...] = ()
    """Values, in lower case, that need no note or error."""
    implies: str = ""
    """A choice that the key implies unless another is made: `data=csv`."""
    decides: bool = False
    """Whether the choice that it implies comes before those that other keys imply or make."""


def _moved(old: str, new: str, note: str = "", *, implies: str = "", values: Mapping[str, str] | None = None) -> Alias:
    return Alias(old, Fate.MOVED, new, note, values or {}, implies=implies)


def _choice(old: str, group: str, values: Mapping[str, str]) -> Alias:
    return Alias(old, Fate.CHOICE, group, values=values)


def _of_pairs(old: str, new: str) -> Alias:
    """Return a key of v1's retrosynthesis, whose data are pairs whatever its other keys say."""
    return Alias(old, Fate.MOVED, new, implies="data=pairs", decides=True)


def _ignored(old: str, note: str, *harmless: str) -> Alias:
    return Alias(old, Fate.IGNORED, note=note, harmless=harmless)


def _refused(old: str, note: str, *harmless: str) -> Alias:
    return Alias(old, Fate.REFUSED, note=note, harmless=harmless)


PRECISIONS = {"32-true": "32", "fp32": "32", "16": "16-mixed", "bf16": "bf16-mixed"}
OPTIMIZERS = {"fused_adam": "adamw", "adam": "adamw", "distributed_fused_adam": "adamw"}
SCHEDULES = {
    "cosineannealing": "cosine",
    "inversesquarerootannealing": "inverse_square_root",
    "noamannealing": "noam",
    "warmupannealing": "warmup_annealing",
    "warmupannealdecayhold": "warmup_anneal_hold",
    "linearwarmupholddecaypolicy": "warmup_anneal_hold",
}
SOURCES = {
    "csv_mmap": "csv",
    "csv_fields_mmap": "csv",
    "fasta_mmap": "fasta",
    "fasta_fields_mmap": "fasta",
}
CHOICE_VALUES = {"optim": OPTIMIZERS, "scheduler": SCHEDULES}
"""v1's names of choices, which also work directly: `scheduler=CosineAnnealing`."""

_ENGINE = "megatron-core and torch decide this here"
_STEPS = "trainer.max_steps sets the length of a run"

ALIASES: tuple[Alias, ...] = (
    # top level
    _moved("do_training", "task.do_training"),
    _moved("do_testing", "task.do_testing"),
    _ignored("do_preprocessing", "data sources are prepared when first used", "false"),
    _ignored("target", "model=NAME chooses the model", "null"),
    # trainer
    _moved("trainer.accumulate_grad_batches", "batch.accumulate_grad_batches"),
    _moved("trainer.precision", "trainer.precision", values=PRECISIONS),
    _refused("trainer.max_time", "give trainer.max_time_min, in minutes", "null"),
    _ignored("trainer.max_epochs", _STEPS, "null", "-1"),
    _ignored("trainer.limit_train_batches", _STEPS, "1.0", "null"),
    _ignored("trainer.logger", "choose loggers with logger=[csv,wandb]", "false"),
    _ignored("trainer.enable_checkpointing", "runs always save checkpoints", "false", "true"),
    _ignored("trainer.use_distributed_sampler", "the order of samples does not depend on ranks", "false"),
    _ignored("trainer.replace_sampler_ddp", "the order of samples does not depend on ranks", "false"),
    _ignored("trainer.benchmark", _ENGINE, "false"),
    _ignored("trainer.strategy", _ENGINE),
    # exp_manager
    _moved("exp_manager.checkpoint_callback_params.monitor", "checkpoint.monitor"),
    _moved("exp_manager.checkpoint_callback_params.mode", "checkpoint.mode"),
    _moved("exp_manager.checkpoint_callback_params.save_top_k", "checkpoint.save_top_k"),
    _moved("exp_manager.checkpoint_callback_params.every_n_train_steps", "checkpoint.every_n_steps"),
    _ignored("exp_manager.checkpoint_callback_params.save_last", "the newest checkpoints are always kept", "true"),
    _ignored("exp_manager.checkpoint_callback_params.*", "checkpoints are named by their step"),
    Alias("exp_manager.create_wandb_logger", Fate.SWITCH, "wandb", "adds or removes this logger"),
    Alias("exp_manager.create_tensorboard_logger", Fate.SWITCH, "tensorboard", "adds or removes this logger"),
    _moved("exp_manager.wandb_logger_kwargs.*", "logger.wandb.*", implies="logger=wandb"),
    _moved("exp_manager.name", "name"),
    _ignored("exp_manager.exp_dir", "runs go to ${home}/runs/<name>; set home or BIONEMO_HOME", "null"),
    _ignored("exp_manager.explicit_log_dir", "runs go to ${home}/runs/<name>; set home or BIONEMO_HOME", "null"),
    _moved("exp_manager.resume_if_exists", "resume", values={"true": "auto", "false": "null"}),
    _ignored("exp_manager.resume_ignore_no_checkpoint", "resume=auto starts a new run if none can be resumed", "true"),
    _ignored("exp_manager.create_checkpoint_callback", "runs always save checkpoints", "true"),
    _ignored("exp_manager.*", "it has no meaning here"),
    # model: batch, layout, seed
    _moved("model.micro_batch_size", "batch.micro_batch_size"),
    _moved("model.global_batch_size", "batch.global_batch_size"),
    _moved("model.tensor_model_parallel_size", "parallel.tensor_model_parallel_size"),
    _moved("model.pipeline_model_parallel_size", "parallel.pipeline_model_parallel_size"),
    _moved("model.sequence_parallel", "parallel.sequence_parallel"),
    _moved(
        "model.activations_checkpoint_granularity",
        "trainer.activations_checkpoint_granularity",
        values={"null": "none"},
    ),
    _moved("model.activations_checkpoint_method", "trainer.activations_checkpoint_method"),
    _moved("model.activations_checkpoint_num_layers", "trainer.activations_checkpoint_num_layers"),
    _refused("model.pipeline_model_parallel_split_rank", "encoder-decoders are not split into stages", "0", "null"),
    _moved("model.seed", "seed"),
    _moved("model.resume_from_checkpoint", "resume"),
    _moved("model.downstream_task.restore_from_path", "restore_from_path"),
    _moved("model.downstream_task.input_base_model", "restore_from_path"),
    _ignored("model.downstream_task.outputs", "the task decides this", "[]", "null"),
    # model: optimizer and schedule
    _choice("model.optim.name", "optim", OPTIMIZERS),
    _choice("model.optim.sched.name", "scheduler", SCHEDULES),
    _moved("model.optim.*", "optim.*"),
    _choice("optim.name", "optim", OPTIMIZERS),
    _choice("optim.sched.name", "scheduler", SCHEDULES),
    _moved("optim.sched.max_lr", "optim.lr"),
    _moved("optim.sched.constant_steps", "scheduler.constant_steps"),
    _ignored("optim.sched.max_steps", "schedules end at trainer.max_steps", "null"),
    _ignored("optim.sched.last_epoch", "schedules are functions of the step", "-1"),
    _moved("optim.sched.*", "scheduler.*"),
    # model.data and data alike
    _moved("model.data.seed", "seed"),
    _moved("model.data.*", "data.*"),
    _moved("data.micro_batch_size", "batch.micro_batch_size"),
    _moved("data.num_workers", "batch.num_workers"),
    _moved("data.dynamic_padding", "batch.dynamic_padding"),
    _moved("data.max_seq_length", "batch.seq_length"),
    _moved("data.modify_percent", "model.modify_percent"),
    _moved("data.mask_percent", "model.mask_percent"),
    _moved("data.perturb_percent", "model.perturb_percent"),
    _moved("data.identity_percent", "model.identity_percent"),
    *(
        _moved(f"data.{flag}", f"model.{flag}")
        for flag in (
            "canonicalize_target_smile",
            "canonicalize_encoder_input",
            "canonicalize_decoder_output",
            "encoder_augment",
            "decoder_independent_augment",
            "augmentation_prob",
            "encoder_mask",
            "mask_prob",
            "span_lambda",
        )
    ),
    _refused("data.decoder_mask", "the decoder's input is never masked", "false"),
    *(
        _moved(f"data.{key}", f"model.{key}")
        for key in ("seq_length_dec", "masked_lm_prob", "max_ngram_size", "mean_ngram_size", "geometric_dist")
    ),
    *(
        _refused(f"data.{key}", "span corruption has no such option here", "false", "0", "0.0")
        for key in ("short_seq_prob", "permutation", "whole_word_masking", "favor_longer_ngrams")
    ),
    _ignored("data.canonicalize_input", "the other canonicalize_... flags decide this"),
    _choice("data.data_impl", "data", SOURCES),
    _moved("data.dataset_path", "data.dataset_path", implies="data=csv"),
    _moved("data.dataset.train", "data.train", implies="data=csv"),
    _moved("data.dataset.val", "data.val", implies="data=csv"),
    _moved("data.dataset.test", "data.test", implies="data=csv"),
    _moved("data.data_impl_kwargs.csv_mmap.data_col", "data.data_col", implies="data=csv"),
    _moved("data.data_impl_kwargs.csv_mmap.data_sep", "data.data_sep", implies="data=csv"),
    _moved("data.data_impl_kwargs.csv_mmap.header_lines", "data.header_lines", implies="data=csv"),
    _of_pairs("data.data_impl_kwargs.csv_fields_mmap.data_fields.products", "data.source_col"),
    _of_pairs("data.data_impl_kwargs.csv_fields_mmap.data_fields.reactants", "data.target_col"),
    _ignored("data.data_impl_kwargs.csv_fields_mmap.header_lines", "give data.header_lines", "1"),
    _ignored("data.data_impl_kwargs.csv_fields_mmap.data_sep", "give data.data_sep", ",", ""),
    _refused("data.input_name", "the source is the column of the products", "products"),
    _refused("data.target_name", "the target is the column of the reactants", "reactants"),
    _ignored("data.data_impl_kwargs.*", "data sources are kept in a prepared store; there are no index files"),
    _refused("data.use_upsampling", "the data is always repeated until trainer.max_steps", "true"),
    _ignored("data.seed", "seed alone decides the order of samples"),
    _ignored("data.shuffle", "training data is always shuffled", "true"),
    _ignored("data.drop_last", "every step has a full global batch", "false", "true"),
    _ignored("data.skip_lines", "give the number of header lines as data.header_lines", "0"),
    _ignored("data.pin_memory", _ENGINE, "false", "true"),
    _ignored("data.dataloader_type", "the order of samples is a function of seed and position", "single"),
    _ignored("data.ngc_registry_target", "data=uniref50 downloads from UniProt"),
    _ignored("data.ngc_registry_version", "data=uniref50 downloads from UniProt"),
    _ignored("data.data_url", "data=uniref50 downloads from UniProt"),
    _ignored("data.data_prefix", "give full file names", "", "null"),
    _ignored("data.skip_warmup", "there are no index files", "true", "false"),
    *(
        _ignored(f"data.{key}", "data sources are kept in a prepared store; there are no index files", "null")
        for key in (
            "index_mapping_dir", "index_mapping_type", "block_size", "cache_maxsize", "truncate_to_block_boundary",
        )
    ),
    *(
        _refused(f"data.{key}", "sequences of a pack never attend to each other here", "false")
        for key in ("reset_position_ids", "reset_attention_mask", "eod_mask_loss")
    ),
    # model: tuning and options of v1 that do not exist here
    _moved("model.tokenizer.num_sentinel_tokens", "tokenizer.num_sentinel_tokens"),
    _refused("model.headscale", "heads are not scaled here", "false"),
    _ignored("model.tokenizer.*", "the model has a default tokenizer; choose another with tokenizer=NAME"),
    _ignored("model.max_position_embeddings", "it equals model.seq_length"),
    _ignored("model.encoder_seq_length", "it equals model.seq_length"),
    _refused("model.bert_binary_head", "there is no sentence-order head", "false"),
    _refused("model.dwnstr_task_validation.enabled", "use callbacks=[downstream] and its keys", "false"),
    _ignored("model.dwnstr_task_validation.*", "its keys are callbacks.downstream.* here"),
    *(
        _ignored(f"model.{key}", _ENGINE)
        for key in (
            "apply_query_key_layer_scaling",
            "bias_activation_fusion", "bias_dropout_add_fusion", "fp16_lm_cross_entropy", "fp32_residual_connection",
            "grad_div_ar_fusion", "gradient_as_bucket_view", "hysteresis", "make_vocab_size_divisible_by",
            "masked_softmax_fusion", "megatron_amp_O2", "native_amp_growth_interval", "native_amp_init_scale",
            "onnx_safe", "persist_layer_norm", "post_process", "pre_process", "use_cpu_initialization",
        )
    ),
)  # fmt: skip


def alias_of(key: str, own_keys: frozenset[str] = frozenset()) -> tuple[Alias, str] | None:
    """Return the line that matches `key` and the new key, or None if no line matches.

    Args:
        key: a dotted key as typed.
        own_keys: keys of components, such as `model.hidden_size`; they are never ignored or refused.
    """
    for alias in ALIASES:
        if alias.old.endswith(".*"):
            prefix = alias.old[:-1]
            if not key.startswith(prefix):
                continue
            new = alias.new.removesuffix("*") + key.removeprefix(prefix) if alias.new.endswith(".*") else alias.new
        elif alias.old == key:
            new = alias.new
        else:
            continue
        if key in own_keys and alias.fate in (Fate.IGNORED, Fate.REFUSED):
            return None
        return alias, new
    return None


def new_home(key: str) -> str:
    """Return the new key of a v1 key, or the key itself if it has not moved.

    Raises:
        ConfigError: the table has a cycle, which is a bug.
    """
    for _ in range(8):
        found = alias_of(key)
        if found is None or found[0].fate is not Fate.MOVED or found[1] == key:
            return key
        key = found[1]
    raise ConfigError(f"alias table: {key!r} is in a cycle")


def alias_table() -> list[tuple[str, str, str]]:
    """Return rows of the old key, what it means here, and a remark, for the documentation and `help`."""
    rows = []
    for alias in ALIASES:
        words = ", ".join(f"{old} is {new}" for old, new in alias.values.items())
        meaning = {
            Fate.MOVED: alias.new,
            Fate.CHOICE: f"{alias.new}=",
            Fate.SWITCH: f"logger={alias.new}",
            Fate.IGNORED: "ignored",
            Fate.REFUSED: "refused" + (f" unless {' or '.join(alias.harmless)}" if alias.harmless else ""),
        }[alias.fate]
        rows.append((alias.old, meaning, "; ".join(part for part in (alias.note, words) if part)))
    return rows


def render_aliases() -> str:
    """Return the table as Markdown."""
    lines = ["| v1 | here | remark |", "|---|---|---|"]
    lines += [
        f"| `{old}` | {here if ' ' in here or here == 'ignored' else f'`{here}`'} | {remark} |"
        for old, here, remark in alias_table()
    ]
    return "\n".join(lines) + "\n"
