"""MegaMolBART and MolMIM as a bionemo-run plugin.

`plugin`, `presets` and `sources` say what is offered. Text: `vocabulary`, `tokenizer`. Molecules: `molecules` (what is
asked of RDKit), `chemistry`, `rules`, and `zinc15` with `shards`. Examples: `objective`, with `augment` and `spans`.
Networks: `model`, `latents`, `probe`; `connector` knows their weights in v1's archives.
"""
