"""The command, as `python -m bionemo_core`."""

import sys

from bionemo_core.cli import main

sys.exit(main())
