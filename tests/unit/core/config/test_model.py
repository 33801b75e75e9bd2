"""Settings: what is said of a mistake in one, and the adapters that they name."""

from __future__ import annotations

from typing import Any

import pytest

from defer_core import config
from defer_core.config import Config
from defer_core.errors import ConfigError
from defer_core.testing import MemoryStore, MemoryTransport


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"transprot": "local"}, "transport"),
        ({"transport": "nowhere"}, "cloud, appengine, local"),
        ({"store": "nowhere"}, "sqlite"),
        ({"transport": "no.such.module:Class"}, "cannot be imported"),
        ({"transport": "defer_core.transports.memory:Nothing"}, "cannot be found"),
        ({"transport": 5}, "5"),
        ({"transport": "os:getcwd"}, "'os:getcwd' is no Transport"),
        ({"transport": "memory", "store": "collections:OrderedDict"}, "is no TaskStore"),
        ({"url": "tasks"}, "url is 'tasks'"),
        ({"url": "https://"}, "url is 'https://'"),
        ({"url": 5}, "url is 5"),
        ({"transport": "memory", "transport_options": {"colour": "red"}}, "colour"),
        ({"store_policy": "sometimes"}, "when-large"),
        ({"keys": "secret"}, "list"),
        ({"keys": [""]}, "empty"),
        ({"inline_limit": -1}, "inline_limit is -1"),
        ({"grace": float("nan")}, "grace is nan"),
        ({"max_unverified": -1}, "max_unverified is -1"),
        ({"expires_after": -1}, "expires_after is -1"),
        ({"keys": [5]}, "signing key is a int"),
        ({"keys": ["good", None]}, "signing key is a NoneType"),
        ({"timezone": "Asia/Tokyo"}, "timezone is a str"),
        ({"grace": -1}, "grace"),
        ({"callables": "shop.*"}, "list of patterns"),
        ({"authenticators": "appengine"}, "list of authenticators"),
        ({"inline_limit": "100k"}, "inline_limit is a str"),
        ({"grace": "an hour"}, "grace is a str"),
        ({"grace": None}, "grace is a NoneType"),
        ({"allow_pickle": "no"}, "True or False"),
        ({"max_body": True}, "whole number"),
        ({"authenticator_options": ["oidc"]}, "a dict"),
    ],
)
def test_a_mistake_is_named(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says), config.configured(**settings) as made:
        assert [made.signer, made.the_transport, made.the_store] == "never so far"


def test_adapters_are_named_in_three_ways() -> None:
    transport = MemoryTransport()
    assert Config(transport=transport).the_transport is transport
    assert isinstance(Config(transport="memory").the_transport, MemoryTransport)
    assert isinstance(Config(transport="defer_core.transports.memory:MemoryTransport").the_transport, MemoryTransport)
    assert isinstance(Config(transport="memory").the_store, MemoryStore)


def test_secrets_are_not_shown() -> None:
    assert "a long secret" not in repr(Config(keys=["a long secret"]))


@pytest.mark.parametrize("platform", ["GAE_ENV", "K_SERVICE"])
def test_the_local_queue_is_refused_on_google_cloud(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(platform, "standard")
    with pytest.raises(ConfigError, match="refused on Google Cloud"):
        Config(transport="local").the_transport  # noqa: B018
    with pytest.raises(ConfigError, match="refused on Google Cloud"):
        Config(transport="defer_local.transport:LocalTransport").the_transport  # noqa: B018
