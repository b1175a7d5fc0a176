"""The one place that reads the metadata of installed distributions; importlib-metadata behind it."""

from importlib_metadata import Distribution, EntryPoint, PackageNotFoundError, distribution, entry_points, version

__all__ = ["Distribution", "EntryPoint", "PackageNotFoundError", "distribution", "entry_points", "version"]
