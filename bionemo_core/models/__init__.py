"""Finding and opening a model: what a path or address names, and its network with weights."""
