"""Files, locks, hashes, downloads, progress and pictures: the only code that touches disk or network with care."""
