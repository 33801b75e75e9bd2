"""What HTTP can carry of a task: its URL, and its further headers."""

from __future__ import annotations

import re

_URL = re.compile(r"(?:/|https?://(?![/?#])[!-~])[!-~]*\Z")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*\Z")


def is_url(text: str) -> bool:
    """Whether this is a path that begins with `/`, or an absolute URL of HTTP; ASCII, and free of spaces."""
    if not _URL.match(text) or text.startswith("/"):
        return bool(_URL.match(text))
    from urllib.parse import urlsplit

    try:
        return bool(urlsplit(text).hostname) and urlsplit(text).port != 0
    except ValueError:  # no port, or no IPv6 address
        return False


def is_header(name: str, value: str) -> bool:
    """Whether HTTP has such names, and the value is in Latin-1 and free of line breaks."""
    return bool(_NAME.match(name) and _VALUE.match(value))
