"""What HTTP can carry of a task: its URL, and its further headers."""

from __future__ import annotations

import re

BODY_TYPE = "application/octet-stream"
"""The Content-Type of a task that sets none."""
LOCAL_SECRET = "X-Defer-Local-Secret"
"""The header with the secret of the local queue, which its dispatcher sends and the handler verifies."""
_PATH = re.compile(r"/[!-~]*\Z")
_ABSOLUTE = re.compile(r"https?://[A-Za-z0-9.:@_\[\]-]+(?=[/?#]|\Z)[!-~]*\Z")
_ENCODED = re.compile(r"[ \x80-\U0010ffff]+")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*\Z")


def encoded(url: str) -> str:
    """Return a URL with spaces, and what is not ASCII, percent-encoded, as Cloud Tasks does it."""
    if url.isascii() and " " not in url:
        return url
    from urllib.parse import quote

    return _ENCODED.sub(lambda found: quote(found[0], errors="surrogatepass"), url)


def is_path(text: str) -> bool:
    """Return True for a path that begins with `/`, with a query or without; ASCII, and without spaces."""
    return bool(_PATH.match(text))


def is_absolute(text: str) -> bool:
    """Return True for an absolute URL of HTTP; ASCII, and without spaces."""
    if not _ABSOLUTE.match(text):
        return False
    from urllib.parse import urlsplit

    try:
        return bool(urlsplit(text).hostname) and urlsplit(text).port != 0
    except ValueError:  # no port, or no IPv6 address
        return False


def is_url(text: str) -> bool:
    """Return True for either."""
    return is_path(text) or is_absolute(text)


def is_header(name: str, value: str) -> bool:
    """Return True if HTTP allows the name, and the value is in Latin-1 without line breaks."""
    return bool(_NAME.match(name) and _VALUE.match(value))
