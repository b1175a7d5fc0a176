"""The prepared store: records filtered once, written, memory-mapped, and looked up."""
