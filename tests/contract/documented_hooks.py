"""The files of the plugin of `docs/plugin_hooks.md`, in which tests make faults."""

from pathlib import Path

from documents import PROJECT, code_blocks

NAME = "bionemo_extras"
FILES = {
    Path(block.file).name: block.text
    for block in code_blocks(PROJECT / "docs/plugin_hooks.md")
    if block.file.startswith(NAME)
}
