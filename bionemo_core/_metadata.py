"""The one place that reads the metadata of installed distributions, with importlib-metadata."""

from importlib_metadata import Distribution, EntryPoint, PackageNotFoundError, distribution, entry_points, version

__all__ = ["Distribution", "EntryPoint", "PackageNotFoundError", "distribution", "entry_points", "version"]
