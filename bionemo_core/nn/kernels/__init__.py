"""Attention kernels: our own for short rows and for decoding, and those of a package."""
