"""The version of the core, below everything that states it."""

__version__ = "0.2.0+src"
