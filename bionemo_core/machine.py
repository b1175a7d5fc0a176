"""Capabilities of this machine: packages, GPUs, CPU cores, disk space. Functions import torch only if they need it."""

import os
import shutil
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile

from bionemo_core._metadata import PackageNotFoundError, version

MIB, GIB = 1024**2, 1024**3

PACKAGE_OF_MODULE = {
    "flash_attn.cute": "flash-attn-4",
    "h5py": "h5py",
    "matplotlib": "matplotlib",
    "megatron.core": "megatron-core",
    "mlflow": "mlflow-skinny",
    "pytorch_lightning": "pytorch-lightning",
    "tensorboard": "tensorboard",
    "torch": "torch",
    "wandb": "wandb",
}
"""Import names, and the distributions that they come from."""


def home_path(home: str = "") -> Path:
    """Return the folder of prepared data, downloads and runs: `home`, else $BIONEMO_HOME, else ~/.bionemo."""
    return Path(home or os.environ.get("BIONEMO_HOME") or Path.home() / ".bionemo").expanduser()


def has_package(module: str) -> bool:
    """Return whether `module` can be imported, without importing it."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # the parent is missing or only half imported
        return False


def folder_without_bytecode(module: str) -> Path | None:
    """Return the folder that `module` is installed in if Python finds no compiled form of it there; else None."""
    spec = find_spec(module)
    if spec is None or spec.origin is None or spec.cached is None or Path(spec.cached).exists():
        return None
    return Path(spec.origin).parents[1 if spec.submodule_search_locations else 0]


def package_version(module: str) -> str | None:
    """Return the installed version of the distribution of `module`, or None if it is not installed."""
    try:
        found: str = version(PACKAGE_OF_MODULE.get(module, module))
    except PackageNotFoundError:
        return None
    return found


@lru_cache(maxsize=1)
def num_gpus() -> int:
    """Return the number of CUDA devices that torch can use."""
    if not has_package("torch"):
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def device(accelerator: str = "auto") -> str:
    """Return `cuda` or `cpu` for a value of `trainer.accelerator`."""
    if accelerator == "cpu" or (accelerator == "auto" and num_gpus() == 0):
        return "cpu"
    return "cuda"


def gpu_names() -> list[str]:
    """Return the name and memory of each CUDA device."""
    if num_gpus() == 0:
        return []
    import torch

    names = []
    for index in range(num_gpus()):
        properties = torch.cuda.get_device_properties(index)
        names.append(f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    return names


def cpu_threads() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def disk_free_bytes(path: Path) -> int:
    """Return the free bytes on the disk of `path`, or of its nearest existing parent."""
    existing = path.absolute()
    while not existing.exists():
        existing = existing.parent
    return shutil.disk_usage(existing).free


def memory_free_bytes() -> float:
    """Return the memory that this process may still use, by the system and by its control group; infinity: unknown."""
    free = float("inf")
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            free = float(line.split()[1]) * 1024
    group = Path("/sys/fs/cgroup")
    limit, used = (next(iter(_lines(group / f"memory.{name}")), "") for name in ("max", "current"))
    if limit.isdecimal() and used.isdecimal():
        cached = [line.split()[1] for line in _lines(group / "memory.stat") if line.startswith("inactive_file ")]
        free = min(free, float(limit) - float(used) + sum(map(float, cached)))
    return free


def _lines(path: Path) -> list[str]:
    """Return the lines of a file of the system; none if it is not there."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def is_writable(folder: Path) -> bool:
    """Return whether files can be created in `folder`, or in its nearest existing parent; one is made and removed."""
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    try:
        with TemporaryFile(dir=existing):  # permissions alone do not say: root, read-only file systems, /proc
            return True
    except OSError:
        return False
