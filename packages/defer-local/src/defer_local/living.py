"""Which dispatchers are alive. Each writes a heartbeat into the file every few seconds, as a time of day; clocks may be
set, so an observer checks whether the heartbeat still changes."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from sqlite3 import Row

from defer_core.spi import clock

BEAT, BEAT_LASTS = 5.0, 20.0
"""Seconds between two heartbeats of a dispatcher, and until one without a heartbeat counts as gone."""
here: set[str] = set()
"""The dispatchers of this process."""


class Watch:
    """Observes the dispatchers of a file."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, float]] = {}

    def gone(self, beats: Sequence[Row]) -> list[str]:
        """Return the ids of the dispatchers that are gone, by their heartbeats (id, host, pid, alive_until)."""
        return [beat["id"] for beat in beats if _has_no_process(beat) or self._is_silent(beat)]

    def _is_silent(self, beat: Row) -> bool:
        """Tell whether the heartbeat has not changed for too long; at the first look its own time counts."""
        latest, now = beat["alive_until"], time.monotonic()
        before, since = self._seen.get(beat["id"], (None, now))
        if latest != before:
            self._seen[beat["id"]] = latest, now
        if before is None:
            return bool(latest < clock.now())
        return bool(latest == before and now - since > BEAT_LASTS)


def _has_no_process(beat: Row) -> bool:
    if beat["host"] != socket.gethostname():
        return False
    if beat["pid"] == os.getpid():
        return beat["id"] not in here
    return not _process_exists(beat["pid"])


def _process_exists(pid: int) -> bool:
    if os.name == "nt":  # signal 0 would end the process there
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
