"""Which environment variables a configuration may read: its values are written to run.json, logs and names."""

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from bionemo_core.errors import ConfigError

ALLOWED_VARIABLE = "BIONEMO_ALLOW_ENV"
"""The variable in which a user lists, with commas, further variables that a configuration may read."""

_READ = re.compile(r"\$\{\s*oc\.env\s*:\s*(?P<name>[^,}]*)")
_OF_PATHS = re.compile(
    r"(?:HOME|USER|LOGNAME|PWD|TMP|TEMP|TMPDIR|SCRATCH|WORK|DATA|.+_(?:HOME|DIR|FOLDER|PATH|ROOT|TMPDIR|SCRATCH|DATA|WORK))"
)


def check_environment_values(content: Any, environ: Mapping[str, str] = os.environ) -> None:
    """Check the interpolations of a configuration that are not resolved yet.

    A variable whose name is that of a path may be read, except into `name`. Others may be read if they are not set,
    since their default is used then, or if `BIONEMO_ALLOW_ENV` lists them.

    Raises:
        ConfigError: another variable is read; the message names it and the key, not its value.
    """
    asked = {name.strip() for name in environ.get(ALLOWED_VARIABLE, "").split(",")}
    for key, text in _texts(content, ""):
        for found in _READ.finditer(text):
            name = found["name"].strip().strip("'\"")
            if name in asked or (_OF_PATHS.fullmatch(name) and key != "name"):
                continue
            if name in environ or "$" in name:
                raise ConfigError(
                    f"{key}: {text} would write the value of the environment variable {name} to the run's files. If "
                    f"that is wanted, set {ALLOWED_VARIABLE}={name}."
                )


def _texts(content: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(content, Mapping):
        for name, value in content.items():
            yield from _texts(value, f"{key}.{name}" if key else str(name))
    elif isinstance(content, list):
        for value in content:
            yield from _texts(value, key)
    elif isinstance(content, str) and "${" in content:
        yield key, content
