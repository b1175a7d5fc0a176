"""From files to deterministic batches.

Reading: `readers`, `ranges`, `prepare` (with `writer`) and `store`; `sources` offers them as components.
Splitting: `splits`, and `clusters` (with `alignment`) for families of related proteins.
Order: `draw` (randomness), `order`, `packing`, `plans` (what each step holds).
Batches: `tokenizer`, `masking`, `rows` in numpy; `batch` and `loader` are where torch begins.
"""
