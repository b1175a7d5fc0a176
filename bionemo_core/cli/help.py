"""`bionemo-run help` and `--help`: groups, choices with summaries, keys, examples. No configuration is composed."""

import dataclasses
import re
import sys
import textwrap
from typing import Any

from bionemo_core.builtin import load_registry
from bionemo_core.cli import SUBCOMMANDS
from bionemo_core.cli.overrides import known_keys
from bionemo_core.config.schema import CORE_GROUPS, SEVERAL_AT_ONCE
from bionemo_core.config.v1.aliases import render_aliases
from bionemo_core.errors import ConfigError
from bionemo_core.plugins import RegisteredComponent, Registry
from bionemo_core.plugins.configure import NO_VALUE, ConfigKey, keys_of_dataclass
from bionemo_core.plugins.did_you_mean import did_you_mean
from bionemo_core.plugins.help_text import description_of, key_help, key_help_of
from bionemo_core.plugins.hookspecs import GROUPS, NAMED_BY, typed_choice, typed_key
from bionemo_core.plurals import format_count
from bionemo_core.ranges import ANY

GROUP_ORDER = (
    "model",
    "tokenizer",
    "data",
    "optim",
    "scheduler",
    "logger",
    "callbacks",
    "connector",
    "head",
    "loss",
    "augmentation",
    "oracle",
    "reader",
    "task",
)
_OPTIONAL = re.compile(r"^Optional\[(.*)\]$")
WITHOUT_OWN = ("augmentation", "oracle", "reader")
"""Groups of which the core has no component; they are shown if a plugin has one."""

USAGE = {
    "plugins": "bionemo-run plugins [--trace]",
    "doctor": "bionemo-run doctor",
    "models": "bionemo-run models [WORD ...]",
    "runs": "bionemo-run runs [NAME] [home=DIR]",
    "serve": "bionemo-run serve restore_from_path=RUN [task.port=8080]",
    "cluster": "bionemo-run cluster IN.fasta OUT.tsv [--identity 0.3]",
    "new-plugin": "bionemo-run new-plugin NAME [--kind KIND] [--folder FOLDER]",
    "check-plugin": "bionemo-run check-plugin NAME [GROUP.KEY=VALUE ...] [--models A,B] [--only WORDS] [--slow]",
    "completion": "bionemo-run completion bash|zsh|fish",
    "help": "bionemo-run help [GROUP | GROUP=NAME | NAME | KEY | aliases]",
}
EXAMPLES = (
    ("bionemo-run model=esm1nv_tiny", "train on the proteins that ship with the core"),
    ("bionemo-run model=esm1nv data=fasta data.path=my.fasta.gz trainer.max_steps=1000", "train on your own proteins"),
    ("bionemo-run model=esm1nv data=csv data.dataset_path=DIR data.train=x[000..049]", "train on CSV shards"),
    (
        "bionemo-run model=esm2_8m batch.micro_batch_size=4 trainer.devices=2 trainer.precision=bf16-mixed",
        "train on two GPUs in bfloat16",
    ),
    ("bionemo-run model=esm1nv name=mine resume=auto", "continue the newest run of that name"),
    ("bionemo-run -m model=esm1nv_tiny optim.lr=1e-3,2e-3", "sweep over two learning rates"),
    ("bionemo-run model=esm1nv --cfg job", "show the whole configuration without running it"),
    ("bionemo-run --config-dir my_configs +experiment=small model=esm1nv", "use your own YAML files"),
)


def run(arguments: list[str]) -> int:
    """Print the overview, or the pages of the given topics.

    A topic is a group, GROUP=NAME or NAME, a key with or without its group, a subcommand, or `aliases`.

    Raises:
        ConfigError: a topic has no page.
    """
    registry = load_registry()
    pages = [_page(topic, registry) for topic in arguments]
    sys.stdout.write("\n".join(pages) if pages else _overview(registry))
    return 0


def _page(topic: str, registry: Registry) -> str:
    group, separator, name = topic.partition("=")
    if separator and group in GROUPS:
        return _component_page(registry.get(group, name))
    if separator:  # a setting of a command line with --help
        return _key_page(group, registry)
    if topic == "aliases":
        return render_aliases()
    if topic in SUBCOMMANDS:
        return f"{USAGE[topic]}\n    {SUBCOMMANDS[topic]}\n"
    if topic in CORE_GROUPS:
        return _schema_page(topic)
    if topic in GROUPS:
        return _group_page(topic, registry)
    if named := [one for one in registry.components() if one.name == topic]:
        return "\n".join(map(_component_page, named))
    if page := _key_page(topic, registry):
        return page
    pages = [*GROUPS, *CORE_GROUPS, *SUBCOMMANDS, "aliases"]
    hint = did_you_mean(topic, [*pages, *(one.name for one in registry.components()), *known_keys(registry)])
    raise ConfigError(f"help: there is no page {topic!r}.{hint} Pages: {', '.join(pages)}, each choice, and each key.")


def _overview(registry: Registry) -> str:
    lines = ["Train, fine-tune and use biomolecular language models. Models are plugins.", ""]
    lines += ["Usage: bionemo-run model=NAME [GROUP=CHOICE] [KEY=VALUE] [-m] [--config-dir DIR] [--cfg job]", ""]
    for group in GROUP_ORDER:
        if group not in WITHOUT_OWN or registry.names(group):
            lines += [f"{group}=", *_choices(group, registry)]
    lines += [
        "",
        "Keys of the core (`bionemo-run help trainer` shows each key of trainer with its default):",
    ]
    for group, schema in CORE_GROUPS.items():
        lines.append(f"  {group}.  {', '.join(one.name for one in dataclasses.fields(schema))}")
    lines.append("  name, home, seed, resume=last|auto|PATH, restore_from_path")
    lines += ["", "Commands:"]
    lines += [f"  {name:<12} {summary}" for name, summary in SUBCOMMANDS.items()]
    lines += ["", "Examples:"]
    for command, explanation in EXAMPLES:
        lines.append(f"  {command}" + f"\n      {explanation}")
    failed = registry.failures()
    if failed:
        lines += ["", f"{format_count(len(failed), 'plugin')} could not be loaded; `bionemo-run plugins` shows why."]
    lines += ["", "Most keys of v1 still work: `bionemo-run help aliases` lists them."]
    return "\n".join(lines) + "\n"


def _choices(group: str, registry: Registry) -> list[str]:
    components = {one.qualified_name: one for one in registry.components(group)}
    if not components:
        return ["  (none installed)"]
    lines = []
    for one in components.values():
        typed = one.name if registry.owner(group, one.name) is one else one.qualified_name
        lines.append(f"  {typed:<22} {one.component.summary}")
    return lines


def _group_page(group: str, registry: Registry) -> str:
    lines = [f"{group}=", *_choices(group, registry), "", f"bionemo-run help {group}=NAME shows its keys."]
    lines += [f"It is chosen by {typed_choice(group, 'NAME')}."] if group in NAMED_BY else []
    return "\n".join(lines) + "\n"


def _component_page(registered: RegisteredComponent) -> str:
    component = registered.component
    lines = [f"{registered.group}={registered.name}  ({registered.distribution} {registered.version})"]
    lines += [f"  {component.summary}"] if component.summary else []
    description = description_of(registered)
    for paragraph in description:
        lines += ["", *textwrap.wrap(paragraph, 100, initial_indent="  ", subsequent_indent="  ")]
    lines += [""] if description and (component.capabilities or component.defaults) else []
    if component.capabilities:
        lines.append(f"  capabilities: {', '.join(sorted(component.capabilities))}")
    for group, value in component.defaults.items():
        shown = value if isinstance(value, str) else ", ".join(f"{key}={inner}" for key, inner in value.items())
        lines.append(f"  default {group}: {shown}")
    if registered.group in NAMED_BY:
        lines += ["", f"  chosen by {typed_choice(registered.group, registered.name)}"]
    given = typed_key(registered.group, registered.name, "KEY")
    title = f"Keys, given as '{given}':" if given else "Keys:"
    lines += ["", title] if registered.keys else ["", "This component has no keys."]
    explanations, prefix = key_help_of(registered), _key_prefix(registered)
    for key in registered.keys:
        lines += _key_lines(prefix, key, explanations.get(key.name))
    return "\n".join(lines) + "\n"


def _schema_page(group: str) -> str:
    lines = [f"{group}: {(CORE_GROUPS[group].__doc__ or '').splitlines()[0]}", ""]
    explanations = key_help(CORE_GROUPS[group])
    for key in keys_of_dataclass(CORE_GROUPS[group]):
        lines += _key_lines(group, key, explanations.get(key.name))
    return "\n".join(lines) + "\n"


def _key_page(wanted: str, registry: Registry) -> str:
    """Return what is known of a key, with or without its group; empty if no group and no component has it.

    Components that describe a key alike share its lines.
    """
    owners: dict[tuple[str, ...], list[str]] = {}
    for group, schema in CORE_GROUPS.items():
        explanations = key_help(schema)
        for key in keys_of_dataclass(schema):
            if wanted in (key.name, f"{group}.{key.name}"):
                owners[tuple(_key_lines(group, key, explanations.get(key.name)))] = []
    for one in registry.components():
        prefix = _key_prefix(one)
        for key in one.keys:
            if wanted in (key.name, f"{prefix or one.group}.{key.name}"):
                described = tuple(_key_lines(prefix, key, key_help_of(one).get(key.name)))
                given = typed_key(one.group, one.name, key.name)
                owner = typed_choice(one.group, one.name) + (f", given as '{given}'" if given else "")
                owners.setdefault(described, []).append(owner)
    pages = []
    for lines, names in owners.items():
        of = textwrap.wrap(f"of {', '.join(names)}", 100, initial_indent="      ", subsequent_indent="      ")
        pages += [*lines, *(of if names else [])]
    return "\n".join(pages) + "\n" if pages else ""


def _key_prefix(registered: RegisteredComponent) -> str:
    """Return what stands before the keys of a component: its group, and its name where several are chosen at once.

    Nothing stands before keys that are given as values of another key.
    """
    if registered.group in NAMED_BY:
        return ""
    several = registered.group in SEVERAL_AT_ONCE
    return f"{registered.group}.{registered.name}" if several else registered.group


def _key_lines(prefix: str, key: ConfigKey, explanation: str | None) -> list[str]:
    """Return the lines of a key: its default and type, then its explanation if it has one."""
    wrapped = textwrap.wrap(explanation or "", 100, initial_indent="      ", subsequent_indent="      ")
    name = f"{prefix}.{key.name}" if prefix else key.name
    return [f"  {name} = {_shown(key.default)}  ({type_of(key)})", *wrapped]


def _shown(value: Any) -> str:
    words = {None: "null", True: "true", False: "false", NO_VALUE: "(must be given)"}
    return words[value] if isinstance(value, bool | str | None) and value in words else str(value)


def type_of(key: ConfigKey) -> str:
    """Return the type of a key as text, with its range: `int, 1 or more`, `str or null`."""
    kind = key.type.__name__ if isinstance(key.type, type) else str(key.type).replace("typing.", "")
    kind = _OPTIONAL.sub(r"\1 or null", kind).replace(" | None", " or null")
    kind = re.sub(r"\bAny\b", "any value", kind)
    return f"{kind}, {key.limits}" if key.limits not in (None, ANY) else kind
