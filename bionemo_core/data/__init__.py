"""The data wing: from files to deterministic batches, with one folder for each part of the way.

- `readers`: records from files of every format.
- `store`: records that were filtered once, written, and are read from a memory map.
- `splits`: which records train, validate and test.
- `sources`: the data components, which put these three together.
- `batches`: order, masking, packing, collation and loading; torch begins in `batch` and `loader`.
- `tokenizer`: single characters to ids.
- `labelled_records`: sequences with labels, for fine-tuning.
- `downloads`: public names for a dataset that downloads its files.
"""
