"""ProtT5nv and its kin as a bionemo-run plugin."""
