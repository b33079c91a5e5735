"""Ids that are derived, so that whoever knows what a thing comes from knows its id; keys."""

from __future__ import annotations

import base64
import hashlib


def derived_id(*parts: object) -> str:
    """An instance's id: 20 letters and digits that stand for these parts."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return base64.b32encode(digest[:13]).decode().lower()[:20]


def is_key(key: object) -> bool:
    """Whether a store can keep it as a key: a text, not empty, without lone surrogates."""
    if not isinstance(key, str) or not key:
        return False
    return not any("\ud800" <= mark <= "\udfff" for mark in key)
