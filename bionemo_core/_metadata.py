"""The one place that reads the metadata of installed distributions, with importlib-metadata."""

import json

from importlib_metadata import Distribution, EntryPoint, PackageNotFoundError, distribution, entry_points, version

__all__ = ["Distribution", "EntryPoint", "PackageNotFoundError", "distribution", "entry_points", "origin", "version"]


def origin(name: str) -> str | None:
    """Return the address from which pip installed a distribution; None: by its name, from an index or a folder.

    Raises:
        PackageNotFoundError: it is not installed.
    """
    text = distribution(name).read_text("direct_url.json")  # PEP 610
    try:
        address = json.loads(text)["url"] if text else None
    except (ValueError, KeyError, TypeError):
        return None
    return address if isinstance(address, str) else None
