"""What strangers write stays in its line, and costs what it weighs."""

from __future__ import annotations

import logging
import re
import time
from argparse import Namespace
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import msgpack
import pytest
from unit.gae_handler.test_allow_list import STALL, body, letters, naming, packed, post, worker

from defer_core import PermanentTaskFailure, SingularTaskFailure, config, defer
from defer_core.errors import ConfigError, DecodeError, OptionError, UnknownTypeError
from defer_core.spi import Routing, clock, decode, encode, run_dead
from defer_core.testing import in_memory
from defer_core.wire import envelope, frame
from defer_core.wire import types as ext
from defer_gae_handler import Request, handle

FORGED = "x\nCRITICAL:root:forged\r\x1b[31m\x85\u2028\x00"
LONG = FORGED + "y" * 500_000
SOURCES = Path(__file__).parents[3] / "packages"


def fail(kind: str) -> None:
    """Fail with a stranger's text."""
    raise {"permanent": PermanentTaskFailure, "singular": SingularTaskFailure, "bug": ZeroDivisionError}[kind](LONG)


@pytest.fixture(autouse=True)
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever is logged is one line of a bounded length, and something is."""
    caplog.set_level(logging.DEBUG)
    yield
    messages = [record.getMessage() for record in caplog.get_records("call")]
    assert messages
    for message in messages:
        assert message.isprintable() and len(message) < 5000, message[:200]


def claimed(**fields: Any) -> bytes:
    given = {"store": "memory", "alias": "", "key": "k", "digest": b"d" * 32, "size": 5, **fields}
    sealed = envelope.Envelope(claim_check=envelope.ClaimCheck(**given), created=clock.now() - 7200)
    return frame.wrap(envelope.encode(sealed))


BODIES = {
    "a callable": lambda text: body([f"{text}:x", [], {}]),
    "a name in a module": lambda text: body([f"{STALL}:{text}", [], {}]),
    "a name on the list": lambda text: body([f"{STALL}.{text}:x", [], {}]),
    "no name": lambda text: body([text, [], {}]),
    "a method": lambda text: body([["method", [1], text], [], {}]),
    "a method on the list": lambda text: body([["method", packed(ext.CALLABLE, f"{STALL}:basket"), text], [], {}]),
    "a partial": lambda text: body([["partial", f"{STALL}:{text}", [], {}], [], {}]),
    "a type": lambda text: body([f"{STALL}:ok", [packed(ext.NAMED, [text, 1])], {}]),
    "an enum": lambda text: body([f"{STALL}:ok", [packed(ext.ENUM, [f"{STALL}:{text}", "x"])], {}]),
    "an enum elsewhere": lambda text: body([f"{STALL}:ok", [packed(ext.ENUM, [f"{text}:x", "x"])], {}]),
    "a member": lambda text: body([f"{STALL}:ok", [packed(ext.ENUM, [f"{STALL}:Colour", text])], {}]),
    "a value of an enum": lambda text: body([f"{STALL}:ok", [packed(ext.ENUM, [f"{STALL}:Colour", None, text])], {}]),
    "no enum": lambda text: body([f"{STALL}:ok", [packed(ext.ENUM, [f"{STALL}:ok", text])], {}]),
    "a zone": lambda text: body([f"{STALL}:ok", [packed(ext.ZONEINFO, text)], {}]),
    "a decimal": lambda text: body([f"{STALL}:ok", [msgpack.ExtType(ext.DECIMAL, ascii(text).encode())], {}]),
    "a key": lambda text: body([f"{STALL}:ok", [packed(ext.NDB_KEY, ["cloud", "p", None, text, [text]])], {}]),
    "a store": lambda text: claimed(store=text),
    "an alias": lambda text: claimed(alias=text),
    "a record": lambda text: claimed(key=text),
    "an argument": lambda text: body([f"{STALL}:ok", [], {text: 1}]),
    "a pickle": lambda text: naming(text.replace("\x00", ""), "x"),
    "a name in a pickle": lambda text: naming(STALL, text),
    "junk": lambda text: text.encode(),
}  # fmt: skip


@pytest.mark.parametrize("text", [FORGED, LONG], ids=["forged", "long"])
@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("callables", [(f"{STALL}.*",), ()], ids=["list", "all"])
def test_no_body_leaves_its_line(
    name: str, text: str, callables: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    data = BODIES[name](text)
    for grace in (0.0, 3600.0):
        with worker(*callables, grace=grace, accept_legacy_pickles=True, max_body=2_000_000):
            headers = {f"X-AppEngine-{each}": text for each in HEADERS} | {"X-AppEngine-TaskRetryCount": "0"}
            request = Request("POST", text, headers, text, lambda size: data)
            try:
                handle(request)
            except TypeError as error:  # the call does not fit
                logging.getLogger("defer").warning("%s", error)
            run_dead(Namespace(action="list", ids=[]))
            shown = capsys.readouterr().out
            assert shown == "" or all(line.isprintable() and len(line) < 2500 for line in shown.split("\n"))


HEADERS = "TaskName QueueName TaskRetryCount TaskExecutionCount TaskETA TaskPreviousResponse TaskRetryReason".split()


@pytest.mark.parametrize("kind", ["permanent", "singular", "bug"])
def test_no_error_of_a_task_leaves_its_line(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    with worker():
        try:
            post(body([f"{__name__}:fail", [kind], {}]))
        except ZeroDivisionError:
            assert kind == "bug"
    assert caplog.records


@pytest.mark.parametrize(
    "headers", [{"Content-Length": "9" * 17}, {"X-AppEngine-Cron": FORGED}, {"X-AppEngine-User-IP": LONG}]
)
def test_no_header_leaves_its_line(
    headers: dict[str, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GAE_ENV", "standard")
    with in_memory(authenticators=["appengine"]):
        for method in ("POST", "GET"):
            given = {"X-AppEngine-TaskName": LONG, "X-AppEngine-Cron": "true", **headers}
            handle(Request(method, LONG, given, "", lambda size: b""))
    with worker():
        handle(Request("POST", LONG, {"Content-Length": "9" * 17}, LONG, lambda size: b""))


def test_every_logger_of_ours_keeps_to_its_line(caplog: pytest.LogCaptureFixture) -> None:
    found = set()
    for source in SOURCES.glob("*/src/**/*.py"):
        for name in re.findall(r'(?:getLogger|logger)\("([\w.]+)"\)', source.read_text()):
            found.add(name)
    for module in ("defer_gae_handler.wsgi", "defer_local.dispatcher", "defer_local.target"):
        import_module(module)
    assert {"defer", "defer.handler", "defer.local"} <= found
    for name in found - {"djangae.sandbox"}:  # which quotes nobody
        logging.getLogger(name).warning("%s %d %.1f %s", LONG, 7, 1.5, None)
        assert caplog.messages[-1].endswith("… 7 1.5 None")


# --- what it costs ----------------------------------------------------------------------------------------------------


def test_names_are_remembered_up_to_a_sensible_length(caplog: pytest.LogCaptureFixture) -> None:
    with worker() as queue:
        for number in range(20):
            post(body([f"{STALL}:{number}{'x' * 100_000}", [], {}]))
            post(body([f"no.such{number}:{'x' * 100_000}", [], {}]))
        policy = config.current().policy
        assert sum(map(len, policy._allowed_names)) < 1000 and policy.known == {}
        assert queue is not None


M = 2**61 - 1
COLLIDING = {
    "ints": lambda n: packed_int(n * M),
    "decimals": lambda n: msgpack.ExtType(ext.DECIMAL, str(n * M).encode()),
    "uuids": lambda n: msgpack.ExtType(ext.UUID, (n * M).to_bytes(16, "big")),
    "complex numbers": lambda n: codec_ext(complex(-1000003.0 * n, float(n))),
    "tuples": lambda n: packed(ext.TUPLE, [packed_int(n * M)]),
    "frozensets": lambda n: packed(ext.FROZENSET, [packed_int(n * M)]),
}


def packed_int(number: int) -> msgpack.ExtType:
    return msgpack.ExtType(ext.INT, number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True))


def codec_ext(value: Any) -> msgpack.ExtType:
    return msgpack.unpackb(encode(value, config.Config()), ext_hook=msgpack.ExtType)


@pytest.mark.parametrize("kind", COLLIDING)
def test_keys_that_are_chosen_to_collide_are_refused(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    members = [COLLIDING[kind](number) for number in range(1, 3001)]
    with worker():
        for value in (dict.fromkeys(members), packed(ext.SET, members), packed(ext.FROZENSET, members)):
            data = body([f"{STALL}:ok", [{"deep": [value]}], {}])
            began = time.process_time()
            assert post(data) == 200
            assert time.process_time() - began < 2  # 3,000 of them take far more, compared with each other
            assert "share their hash" in letters()[-1]


def test_a_few_keys_that_collide_travel_and_so_do_many_that_do_not(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("defer").info("nothing to say")
    big = {number * M: number for number in range(20)}
    many = {number: str(number) for number in range(-500, 2000)} | {f"{number}": number for number in range(3000)}
    pairs = {(a, b): a for a in range(50) for b in range(50)}
    for value in (big, many, pairs, set(range(-5000, 5000)), frozenset(big)):
        assert decode(encode(value, config.Config()), config.Config()) == value


# --- secrets ----------------------------------------------------------------------------------------------------------


def test_no_secret_is_in_what_describes_things(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("defer").info("nothing to say")
    secret = "Bearer hush"
    headers = {"Authorization": secret}
    with in_memory(keys=["hush" * 5], authenticator_options={"local": {"secret": secret}}):
        handle_ = defer(len, [1], _headers=headers)
        described = [
            repr(each)
            for each in (
                config.current(), Routing(headers=headers), handle_, Request("GET", "/", headers),
                config.Config(transport_options={"x": secret}, store_options={"y": secret}),
            )
        ]  # fmt: skip
        assert not any("hush" in each for each in described)
    for bad in ({"Authorization": f"{secret}\n"}, [secret]):
        with in_memory(), pytest.raises(OptionError, match="_headers") as raised:
            defer(len, [1], _headers=bad)
        assert "hush" not in str(raised.value)
    with pytest.raises(ConfigError, match=r"DEFER_AUTHENTICATOR_OPTIONS is '\{\"…\": \{\"…\"") as error:
        config.from_environment({"DEFER_AUTHENTICATOR_OPTIONS": '{"local": {"secret": "hush"'})
    assert "hush" not in str(error.value)


def test_an_error_that_quotes_a_body_stays_in_its_line(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("defer").info("nothing to say")
    for error in (DecodeError(f"no {LONG}"), UnknownTypeError(f"no {FORGED}")):
        assert str(error).isprintable() and len(str(error)) < 1100
