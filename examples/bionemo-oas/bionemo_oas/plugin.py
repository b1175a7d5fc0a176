"""The components of this plugin."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bionemo_core import Component, configure, hookimpl

if TYPE_CHECKING:
    from bionemo_oas.reader import OasReader

BIONEMO_PLUGIN_API = 1


def oas() -> OasReader:
    """Read data units of the Observed Antibody Space, unpaired or paired."""
    from bionemo_oas.reader import OasReader

    return OasReader()


@hookimpl
def bionemo_readers() -> Iterator[Component]:
    """Offer the reader."""
    yield Component("oas", configure(oas), "data units of the Observed Antibody Space")
