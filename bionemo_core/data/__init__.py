"""From files to deterministic batches.

Reading: `readers`, `ranges`, `rules`, `prepare` (with `prepare_records`, `prepare_report`, `writer`) and `store`;
`sources` offers them as components.
Downloading: `download`, on `remote`; `uniref50` and `uniref90` (with `id_index`) are what is made of large ones.
Splitting: `splits`, `split_labels` and `splitting` (the options), and `clusters` (with `alignment`) for families.
Order: `draw` (randomness), `order`, `blending` (with `blend`, its component), `packing`, `plans` (a step's contents).
Batches: `tokenizer`, `masking`, `rows` in numpy; `batch` and `loader` are where torch begins.
"""
