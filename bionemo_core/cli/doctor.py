"""`bionemo-run doctor`: reports what works on this machine, what doesn't, and how to fix it."""

import os
import platform
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from bionemo_core import __version__, _metadata, machine
from bionemo_core.builtin import load_registry
from bionemo_core.errors import ConfigError
from bionemo_core.plugins import CORE_DISTRIBUTION
from bionemo_core.plurals import format_count

LOW_DISK_BYTES = 10 * machine.GIB
OPTIONAL = {
    "tensorboard": "logger=tensorboard",
    "wandb": "logger=wandb",
    "mlflow": "logger=mlflow",
    "h5py": "embeddings in a file that ends in .h5",
    "flash_attn.cute": "faster attention on Hopper GPUs and later",
}


@dataclass(frozen=True)
class Finding:
    """One line of the report, with advice if something should be done."""

    level: str  # ok, note, fail
    text: str
    advice: str = ""


def run(arguments: list[str]) -> int:
    """Print the findings; return 2 if something required does not work, else 0.

    Raises:
        ConfigError: an argument is given.
    """
    if arguments:
        raise ConfigError(f"doctor: unknown argument {arguments[0]!r}. Usage: bionemo-run doctor")
    checks: tuple[Callable[[], Iterable[Finding]], ...] = (
        _program,
        _origins,
        _torch,
        _megatron,
        _optional,
        _plugins,
        _home,
    )
    failed = False
    for check in checks:
        for finding in check():
            failed = failed or finding.level == "fail"
            advice = f"\n        {finding.advice}" if finding.advice else ""
            sys.stdout.write(f"{finding.level:<5} {finding.text}{advice}\n")
    return 2 if failed else 0


def _program() -> Iterable[Finding]:
    yield Finding(
        "ok", f"bionemo-run {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    )
    yield Finding("ok", f"{machine.cpu_threads()} CPU cores")


def _origins() -> Iterable[Finding]:
    """Say where the core came from, and warn if pip took it by its name while plugins are of a checkout."""
    records = load_registry().records[1:]
    try:
        core = _metadata.origin(CORE_DISTRIBUTION)
        origins = {one.distribution: _metadata.origin(one.distribution) or "" for one in records}
    except _metadata.PackageNotFoundError:
        return  # its files lie on the path, without metadata
    checkouts = [name for name, address in origins.items() if address.startswith("file:")]
    yield Finding("ok", f"bionemo-run was installed {f'from {core}' if core else 'by its name'}")
    if core is None and checkouts:
        yield Finding(
            "note",
            f"bionemo-run came by its name from an index or a folder, and {', '.join(checkouts)} from a checkout",
            "Anybody may publish a package of that name. Install core and plugins of a checkout in one command, with "
            "-c constraints.txt.",
        )


def _torch() -> Iterable[Finding]:
    version = machine.package_version("torch")
    if version is None:
        yield Finding("fail", "torch is not installed", "pip install -c constraints.txt torch")
        return
    try:
        num_gpus = machine.num_gpus()
    except Exception as error:  # a broken torch can raise anything, and the report should go on
        yield Finding(
            "fail",
            f"torch {version} cannot be imported: {error}",
            "Reinstall torch: pip install --force-reinstall -c constraints.txt torch",
        )
        return
    yield Finding("ok", f"torch {version}")
    if folder := machine.folder_without_bytecode("torch"):
        yield Finding(
            "note",
            "torch was installed without bytecode: each start compiles its source anew, which takes some 10 s",
            f"Compile it once: {sys.executable} -m compileall -q -j 0 {folder}",
        )
    for name in machine.gpu_names():
        yield Finding("ok", f"GPU: {name}")
    if num_gpus == 0:
        yield Finding("note", "torch finds no GPU: training runs on the CPU", "Use a small model such as esm1nv_tiny.")


def _megatron() -> Iterable[Finding]:
    for module in ("megatron.core", "pytorch_lightning"):
        version = machine.package_version(module)
        name = machine.PACKAGE_OF_MODULE[module]
        if version is None or not machine.has_package(module):
            yield Finding("fail", f"{name} is not installed", f"pip install -c constraints.txt {name}")
        else:
            yield Finding("ok", f"{name} {version}")


def _optional() -> Iterable[Finding]:
    for module, purpose in OPTIONAL.items():
        version = machine.package_version(module)
        if version is None:
            yield Finding(
                "note", f"{machine.PACKAGE_OF_MODULE[module]} is not installed; it is needed only for {purpose}"
            )
        else:
            yield Finding("ok", f"{machine.PACKAGE_OF_MODULE[module]} {version}")


def _plugins() -> Iterable[Finding]:
    registry = load_registry()
    for record in registry.records[1:]:
        if record.status == "ok":
            offers = format_count(len(record.components), "component")
            yield Finding("ok", f"plugin {record.distribution} {record.version}, {offers}")
        else:
            yield Finding("note", f"plugin {record.describe()}", "Run bionemo-run plugins --trace for details.")
    if not registry.names("model"):
        yield Finding(
            "note", "no installed plugin offers a model", "pip install -c constraints.txt -e . -e plugins/bionemo-esm"
        )


def _home() -> Iterable[Finding]:
    home = Path(os.environ.get("BIONEMO_HOME", "~/.bionemo")).expanduser()
    if machine.is_writable(home):
        yield Finding("ok", f"home folder {home}")
    else:
        yield Finding(
            "fail", f"home folder {home} is not writable", "Set BIONEMO_HOME to a folder that you can write to."
        )
    free = machine.disk_free_bytes(home)
    level = "ok" if free >= LOW_DISK_BYTES else "note"
    yield Finding(
        level,
        f"{free / machine.GIB:.1f} GiB free on its disk",
        "" if level == "ok" else "Checkpoints of large models need more space.",
    )
