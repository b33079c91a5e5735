"""Ids that are derived: whoever knows what a thing comes from knows its id."""

from __future__ import annotations

import base64
import hashlib


def derived_id(*parts: object) -> str:
    """An instance's id: 20 letters and digits that stand for these parts."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return base64.b32encode(digest[:13]).decode().lower()[:20]
