"""Checkpoints of runs, models that travel, and weights from elsewhere.

Run checkpoints are safetensors shards with a JSON index and a manifest of hashes; nothing in them is pickled.

layout     the names of folders and files (no torch)
faults     named points at which a test can kill the process
pieces     a rank's part of a tensor, and whether parts tile the whole
shards     tensors to a safetensors file, streamed
state      nested plain values and tensors, to JSON and back
manifest   what a checkpoint consists of
peers      the ranks that save together
save       the save protocol
load       verification and reading, resharding included
retention  which checkpoints to delete, safely

Models that travel, and weights from elsewhere:

stored             a model at rest: names and parameters to build it, tensors to fill it
artefact           our own form for travelling
safetensors_files  tensors in safetensors files, ours or others'
foreign            v1 archives, Hugging Face folders, and what connectors are
hub                downloads, kept and checked
resize             vocabularies and position tables of another size
load_report        what became of every tensor
"""
