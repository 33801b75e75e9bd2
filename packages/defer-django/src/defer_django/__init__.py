"""defer for Django: put `"defer_django"` into INSTALLED_APPS, run `migrate`, and `from defer_django import defer`."""

from __future__ import annotations

from defer_core import adefer, defer, defer_many

from .__about__ import __version__

__all__ = ["__version__", "adefer", "defer", "defer_many"]
