"""Run checkpoints: safetensors shards with a JSON index and a manifest of hashes; nothing in them is pickled.

layout     the names of folders and files (no torch)
files      writes that are on the disk when they return, and hashes
faults     named points at which a test can kill the process
pieces     a rank's part of a tensor, and whether parts tile the whole
shards     tensors to a safetensors file, streamed
state      nested plain values and tensors, to JSON and back
manifest   what a checkpoint consists of
peers      the ranks that save together
save       the save protocol
load       verification and reading, resharding included
retention  which checkpoints to delete, safely
"""
