"""ProtT5nv and related models as a bionemo-run plugin."""
