"""Checkpoints of runs: safetensors shards, a JSON index, and a manifest of hashes; nothing in them is pickled.

| file | holds |
|---|---|
| `folder_names` | the names of a checkpoint's folders and files (no torch) |
| `faults` | named points at which a test can kill the process |
| `blocks` | a rank's part of a tensor, and the check that all parts tile it |
| `shards` | writing tensors to a safetensors file, streamed |
| `state` | nested plain values and tensors, to JSON and back |
| `manifest` | the list of a checkpoint's files with their hashes |
| `rank_agreement` | agreement between the ranks that save or open together |
| `save` | the save protocol |
| `load` | verification and reading, resharding included |
| `retention` | which checkpoints to delete, and how to delete them safely |
"""
