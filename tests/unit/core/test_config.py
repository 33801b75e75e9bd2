"""Configuration: where it comes from, and what is said of a mistake."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

import pytest

from defer_core import config, configure
from defer_core.config import Config, from_environment
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
        ({"doors": "appengine"}, "list of doors"),
        ({"inline_limit": "100k"}, "inline_limit is a str"),
        ({"grace": "an hour"}, "grace is a str"),
        ({"grace": None}, "grace is a NoneType"),
        ({"allow_pickle": "no"}, "True or False"),
        ({"max_body": True}, "whole number"),
        ({"door_options": ["oidc"]}, "a dict"),
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


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("DEFER_INLINE_LIMIT", "many", "a whole number"),
        ("DEFER_ALLOW_PICKLE", "maybe", "true or false"),
        ("DEFER_STORE_OPTIONS", "{", "a JSON object"),
        ("DEFER_TIMEZONE", "X", "the name of a time zone"),
        ("DEFER_EXPIRES_AFTER", "soon", "a number"),
        ("DEFER_DOORS", "[", "a JSON list"),
    ],
)
def test_a_bad_variable_is_named(variable: str, text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=f"{variable} is {re.escape(repr(text))}: give {expected}"):
        from_environment({variable: text})


def test_a_list_may_be_json() -> None:
    found = from_environment({"DEFER_KEYS": '["with, comma", "two"]', "DEFER_QUEUES": '[{"name": "mail"}]'})
    assert (found.keys, found.queues) == (("with, comma", "two"), ({"name": "mail"},))
    with pytest.raises(ConfigError, match="DEFER_KEYS has a mistake: give a JSON list"):  # which is a secret
        from_environment({"DEFER_KEYS": '["with'})


def test_secrets_are_not_shown() -> None:
    assert "a long secret" not in repr(Config(keys=["a long secret"]))


def test_configure_replaces_what_was_configured_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "_explicit", None)
    configure(transport="memory", grace=5)
    configure(transport="memory")
    assert config.current().grace == 3600


@pytest.mark.parametrize("platform", ["GAE_ENV", "K_SERVICE"])
def test_the_local_queue_is_refused_on_google_cloud(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(platform, "standard")
    with pytest.raises(ConfigError, match="refused on Google Cloud"):
        Config(transport="local").the_transport  # noqa: B018
    with pytest.raises(ConfigError, match="refused on Google Cloud"):
        Config(transport="defer_local.transport:LocalTransport").the_transport  # noqa: B018


def test_nothing_of_google_or_django_is_imported_before_it_is_used() -> None:
    script = (
        "import sys, defer_core, defer_core.testing, defer_core.__main__\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules} & {'google', 'grpc', 'django', 'defer_local'}))"
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO", "DEFER"))}
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environ, check=True)
    # a namespace package may be made by a .pth file before anything is imported
    assert set(ran.stdout.split()) <= {"google"} and "google.cloud" not in ran.stdout
