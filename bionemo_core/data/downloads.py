"""Public names for a dataset that downloads files and publishes what it makes of them; the code is in `io`."""

from bionemo_core.io.atomic import exclusive, new_folder
from bionemo_core.io.download import fetch

__all__ = ["exclusive", "fetch", "new_folder"]
