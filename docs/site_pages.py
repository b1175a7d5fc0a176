"""Hooks of mkdocs: the site gets the pages of the root, the files that pages link to, and a reference of the code.

Links are written for a code host; here they are turned to the pages of the site.
"""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File, InclusionLevel

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
OF_THE_ROOT = {"README.md": "index.md", **{name: name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")}}
"""Pages in the root of the project, and their names on the site."""
REFERENCE = ("api", "client", "errors", "inference.latent_search", "inference.sampling", "protocols", "ranges")
"""Modules of the core whose docstrings make a page."""

_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")
_GENERATED = re.compile(r"^(<!-- .* -->)$", re.MULTILINE)
_FENCE = re.compile(r"^```(\w+) (\S+)$", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in this folder."""
    texts = {name: (ROOT / name).read_text() for name in OF_THE_ROOT}
    texts |= {f"docs/{path.name}": path.read_text() for path in (ROOT / "docs").glob("*.md")}
    for name, page in OF_THE_ROOT.items():
        files.append(File.generated(config, page, content=texts[name]))
    for module in REFERENCE:
        content = f"# bionemo_core.{module}\n\n::: bionemo_core.{module}\n"
        files.append(File.generated(config, f"reference/{module}.md", content=content))
    linked = {_target(name, link) for name, text in texts.items() for link in _LINK.findall(text)}
    for name in sorted(linked - texts.keys()):
        if (ROOT / name).is_file() and not name.startswith("docs/"):
            source = File.generated(config, f"{name}.md", content=_shown(name), inclusion=InclusionLevel.NOT_IN_NAV)
            files.append(source)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to the pages of the site, and the file that a block of code names into its title."""
    names = {there: name for name, there in OF_THE_ROOT.items()}
    path = page.file.src_uri
    if "/" not in path:
        here = names.get(path, f"docs/{path}")
        markdown = _LINK.sub(lambda link: _on_site(_target(here, link[1])), markdown)
    markdown = _GENERATED.sub(r"\n\1\n", markdown)  # a table needs an empty line above it
    return _FENCE.sub(r'```\1 title="\2"', markdown)


def _target(page: str, link: str) -> str:
    """Return the file that a link on a page means, both from the root of the project."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))


def _on_site(name: str) -> str:
    """Return the page of the site for a file of the project."""
    if name in OF_THE_ROOT:
        return OF_THE_ROOT[name]
    return name.removeprefix("docs/") if name.startswith("docs/") else f"{name}.md"


def _shown(name: str) -> str:
    """Return a page that shows a file: the cells of a notebook, or the text of anything else."""
    text = (ROOT / name).read_text()
    if not name.endswith(".ipynb"):
        language = {".py": "python", ".sh": "bash", ".sbatch": "bash"}.get(Path(name).suffix, "text")
        return f"# {name}\n\n````{language}\n{text}````\n"
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]
    shown = [source if kind == "markdown" else f"```python\n{source}\n```" for kind, source in cells]
    return "\n\n".join([*shown, f"This page is the notebook `{name}`.\n"])
