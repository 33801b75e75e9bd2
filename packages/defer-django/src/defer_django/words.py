"""Numbers and times as pages say them, in the language of the request."""

from __future__ import annotations

from datetime import datetime, timezone

from django.utils import formats
from django.utils.timesince import timesince
from django.utils.timezone import localtime
from django.utils.translation import gettext as _
from django.utils.translation import ngettext


def number(value: float) -> str:
    """Return a number with the separators of the language."""
    return formats.number_format(value, force_grouping=True)


def share(part: int, whole: int | None) -> str:
    """Return how much of the whole a part is, in percent; empty if there is no whole."""
    return _("%(number)s %%") % {"number": min(100 * part // whole, 100)} if whole else ""


def at(seconds: float, form: str = "DATETIME_FORMAT") -> str:
    """Return a time (in seconds since the epoch) in a format of the language and in the current time zone."""
    return formats.date_format(localtime(_datetime(seconds)), form)


def span(start: float, end: float, units: int = 2) -> str:
    """Return how long it is from one time to another (both in seconds since the epoch), in its largest units."""
    if end - start >= 60:
        return timesince(_datetime(start), _datetime(end), depth=units)
    seconds = max(int(end - start), 0)
    return ngettext("%(number)s second", "%(number)s seconds", seconds) % {"number": seconds}


def _datetime(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)
