"""ESM-1nv, ESM-2 and ESM-1b as a bionemo-run plugin."""
