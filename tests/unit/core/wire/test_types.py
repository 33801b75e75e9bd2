"""The forms of the standard library's types, and of Datastore keys."""

from __future__ import annotations

import datetime as dt
import io
import struct
import uuid
import zoneinfo
from typing import Any, NamedTuple

import pytest
import services

from defer_core import config
from defer_core.errors import UnserializableError
from defer_core.wire import decoder, encoder

NATIVE = config.Config(allow_pickle=False)
PICKLING = config.Config()


class Pair(NamedTuple):
    """Has no form of its own, so it is pickled."""

    left: Any
    right: Any


@pytest.fixture(scope="module")
def client() -> Any:
    ndb = services.library("google.cloud.ndb")
    credentials = services.library("google.auth.credentials")
    return ndb.Client(project="shop", credentials=credentials.AnonymousCredentials())


PATHS: list[tuple[tuple[Any, ...], dict[str, str]]] = [
    (("Order", 1), {}),
    (("Order", 2**62), {}),
    (("Order", None), {}),
    (("Kunde", "ü", "Order", 7), {}),
    (("Order", 1), {"namespace": "eu"}),
]


@pytest.mark.parametrize(("path", "where"), [*PATHS, (("A", 1), {"project": "x"}), (("A", 1), {"database": "d"})])
@pytest.mark.parametrize("around", [lambda key: [key], lambda key: {key: (key,)}, lambda key: Pair(key, key)])
def test_a_key_of_cloud_ndb(client: Any, path: tuple[Any, ...], where: dict[str, str], around: Any) -> None:
    ndb = services.library("google.cloud.ndb")
    with client.context():
        key = ndb.Key(*path, **where)
        value = around(key)
    how = PICKLING if type(value) is Pair else NATIVE
    found = decoder.unpack(encoder.pack(value, how), how)  # outside of any context, as a handler may do it
    with client.context():
        assert type(found) is type(value) and found == value
        copy = next(iter(found))
        assert type(copy) is ndb.Key and copy.flat() == key.flat()
        assert (copy.project(), copy.database(), copy.namespace()) == (key.project(), key.database(), key.namespace())


@pytest.mark.parametrize(("path", "where"), [*PATHS, (("A", 1), {"app": "s~other"})])
def test_a_key_of_the_bundled_sdk(
    monkeypatch: pytest.MonkeyPatch, path: tuple[Any, ...], where: dict[str, str]
) -> None:
    monkeypatch.setenv("APPLICATION_ID", "s~shop")
    ndb = services.library("google.appengine.ext.ndb")
    key = ndb.Key(*path, **where)
    for value, how in (([key, {key: (key,)}], NATIVE), (Pair(key, [key]), PICKLING)):
        found = decoder.unpack(encoder.pack(value, how), how)
        assert found == value and type(found[0]) is type(key)
        assert (found[0].app(), found[0].namespace(), found[0].flat()) == (key.app(), key.namespace(), key.flat())


NATIVE = config.Config(allow_pickle=False)


@pytest.mark.parametrize("safety", uuid.SafeUUID)
def test_a_uuid_keeps_how_safely_it_was_made(safety: uuid.SafeUUID) -> None:
    value = uuid.UUID(int=7, is_safe=safety)
    arrived = decoder.unpack(encoder.pack(value, NATIVE), NATIVE)
    assert (arrived, arrived.is_safe) == (value, safety)


def test_a_zone_that_was_read_from_a_file_has_no_name_to_travel_by() -> None:
    file = b"TZif" + bytes(16) + struct.pack(">6I", 0, 0, 0, 0, 1, 4) + bytes(6) + b"UTC\0"
    zone = zoneinfo.ZoneInfo.from_file(io.BytesIO(file))
    with pytest.raises(UnserializableError, match="no key to find it by"):
        encoder.pack(dt.datetime(2026, 1, 1, tzinfo=zone), NATIVE)
