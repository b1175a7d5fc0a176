"""`bionemo-run models [WORD ...]`: lists the published weights that the installed plugins know."""

import sys
import textwrap

from bionemo_core.builtin import load_registry
from bionemo_core.errors import ConfigError
from bionemo_core.models.published import PublishedModel, published_models

UNKNOWN_LICENSE = "see its page"


def run(arguments: list[str]) -> int:
    """Print what is known of each model; with words, of those whose name or family has one of them.

    Raises:
        ConfigError: no model has one of the words.
    """
    models = published_models(load_registry())
    chosen = [one for one in models if not arguments or any(_has(one, word) for word in arguments)]
    if not chosen:
        known = ", ".join(dict.fromkeys(one.weights.family for one in models)) or "none; install a plugin"
        raise ConfigError(f"models: no name or family has {' or '.join(arguments) or 'weights'}. Families: {known}.")
    for one in chosen:
        sys.stdout.write(_page(one))
    sys.stdout.write("\nUse one by its name, as in task=embed restore_from_path=NAME; the first use downloads it.\n")
    return 0


def _has(model: PublishedModel, word: str) -> bool:
    return any(word.lower() in text.lower() for text in (model.name, model.weights.family))


def _page(model: PublishedModel) -> str:
    weights = model.weights
    length = f"up to {model.max_tokens:,} tokens" if model.max_tokens else ""
    lines = [
        ", ".join(filter(None, (weights.family, model.shape, length))),
        f"trained to {weights.objective}, on {weights.data}",
        f"tasks {', '.join(model.tasks)}; licence {weights.license or UNKNOWN_LICENSE}",
        weights.address,
    ]
    return f"{model.name}\n" + textwrap.indent("\n".join(lines), "    ") + "\n"
