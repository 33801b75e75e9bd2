"""Keys in words, with the values of a secret order hidden."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from defer_core.spi import current

HIDDEN = "••••••"
"""Stands for a value that is not shown."""


def is_secret(name: str) -> bool:
    """Return whether the name of a value suggests a secret, as `secrets` of the settings says."""
    return re.search(current().secrets, name, re.IGNORECASE) is not None


def key_in_words(key: Sequence[Any] | None, order_field: str) -> str:
    """Return a key of the order of a field; what is beyond all keys is `…`."""
    if key is None:
        return "…"
    hidden = 1 if is_secret(order_field) else 0
    return ", ".join([*[HIDDEN] * hidden, *map(str, key[hidden:])])
