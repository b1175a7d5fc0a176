"""The prepared store: records are filtered and written once, then read from a memory map."""
