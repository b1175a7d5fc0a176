"""Results that appear whole or not at all, where nothing was before."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bionemo_core.data.publishing import new_folder, publish_file, refused
from bionemo_core.errors import ConfigError


@contextmanager
def publishing(target: Path, *, folder: bool) -> Iterator[Path]:
    """A path to write to, which becomes `target` when the block ends well and is removed when it does not.

    Raises:
        ConfigError: there is something at `target` already.
        StorageError: the file system refused.
    """
    if target.exists() or target.is_symlink():
        raise ConfigError(f"{target} is there already; name another output, or move it away first.")
    if folder:
        with new_folder(target) as temporary:
            yield temporary
        return
    temporary = target.with_name(f".{target.name}.part")
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        yield temporary
        publish_file(temporary, target)
    except OSError as error:
        raise refused(target, error) from error
    finally:
        temporary.unlink(missing_ok=True)
