"""Public names for a plugin that downloads files, or publishes what it made of them; their code is in `io`."""

from bionemo_core.io.atomic import new_folder, write_file
from bionemo_core.io.download import fetch
from bionemo_core.io.hashing import canonical, fingerprint_of, hash_bytes, hash_file, seal
from bionemo_core.io.locks import lock_beside

__all__ = [
    "canonical", "fetch", "fingerprint_of", "hash_bytes", "hash_file", "lock_beside", "new_folder", "seal",
    "write_file",
]  # fmt: skip
