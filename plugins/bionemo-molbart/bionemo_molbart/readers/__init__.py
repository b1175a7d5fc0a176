"""File formats of molecules."""
