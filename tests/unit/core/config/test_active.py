"""Where the configuration comes from: configure(), a framework, the environment."""

from __future__ import annotations

import pytest

from defer_core import config, configure
from defer_core.config import active, from_environment


def test_the_environment() -> None:
    found = from_environment(
        {
            "DEFER_TRANSPORT": "memory",
            "DEFER_TRANSPORT_OPTIONS": '{"max_body": 5000}',
            "DEFER_KEYS": "one, two",
            "DEFER_INLINE_LIMIT": "2048",
            "DEFER_GRACE": "5.5",
            "DEFER_ALLOW_PICKLE": "no",
            "DEFER_TIMEZONE": "Asia/Tokyo",
            "OTHER": "x",
        }
    )
    assert (found.transport, found.keys, found.inline_limit, found.grace) == ("memory", ("one", "two"), 2048, 5.5)
    assert found.allow_pickle is False and str(found.timezone) == "Asia/Tokyo"
    assert found.the_transport.max_body == 5000


def test_configure_replaces_what_was_configured_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(active, "_explicit", None)
    configure(transport="memory", grace=5)
    configure(transport="memory")
    assert config.current().grace == 3600
