"""The page that a person opens in a browser; it asks the same interface as any other client."""

from __future__ import annotations

import base64
import re
from pathlib import Path

from bionemo_core.io.hashing import hash_bytes


def read_page() -> tuple[str, str]:
    """Return the page, and the `Content-Security-Policy` that lets only its own script and style run."""
    text = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
    hashes = {
        kind: _hash_of(re.findall(rf"<{kind}>(.*?)</{kind}>", text, re.DOTALL)[0]) for kind in ("script", "style")
    }
    policy = f"script-src {hashes['script']}; style-src {hashes['style']}; connect-src 'self'; img-src blob:"
    return text, f"default-src 'none'; {policy}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def _hash_of(text: str) -> str:
    digest = bytes.fromhex(hash_bytes(text.encode()))
    return f"'sha256-{base64.b64encode(digest).decode()}'"
