"""Calls in words: nothing is revived, and secrets are hidden."""

from __future__ import annotations

import datetime as dt
import enum
import functools
import operator
import pickle
import sys
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgpack
import pytest

from defer_core import config
from defer_core.errors import ConfigError
from defer_core.record import TaskRecord
from defer_core.task import Task
from defer_core.testing import in_memory
from defer_core.wire import describe, encoder, types
from defer_core.wire.envelope import Envelope, encode


class Colour(enum.Enum):
    RED = 1


class Basket:
    def __reduce__(self) -> Any:
        return print, ("this was unpickled",)

    def fill(self, *args: Any) -> None:
        pass


def ship(order: Any, password: str = "", *more: Any, **kwargs: Any) -> None:
    pass


NAME = f"{__name__}.ship"


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    with in_memory():
        yield


def payload_of(func: Any, *args: Any, **kwargs: Any) -> bytes:
    return encoder.pack_call(Task(func=func, args=args, kwargs=kwargs), config.current())


def said_of(payload: bytes, *, verified: bool = True) -> str:
    record = TaskRecord(id="1", envelope=encode(Envelope(payload=payload)), verified=verified)
    return describe.describe(record, config.current())


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (17, "17"),
        ("text\n", r"'text\n'"),
        (None, "None"),
        (b"short", "b'short'"),
        (b"x" * 1000, "<1,000 bytes>"),
        ((1,), "(1,)"),
        ((1, (2, 3)), "(1, (2, 3))"),
        ({1}, "{1}"),
        ([1, [2]], "[1, [2]]"),
        ({"a": {"b": 1}}, "{'a': {'b': 1}}"),
        ({(1, 2): 3}, "{(1, 2): 3}"),
        (Colour.RED, "Colour.RED"),
        (Decimal("1.50"), "Decimal('1.50')"),
        (uuid.UUID(int=1), "UUID('00000000-0000-0000-0000-000000000001')"),
        (dt.date(2026, 1, 2), "datetime.date(2026, 1, 2)"),
        (dt.datetime(2026, 1, 2, 3, tzinfo=dt.timezone.utc), "datetime.datetime(2026, 1, 2, 3, 0)"),
        (list(range(20)), "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …]"),
        ("x" * 5000, f"'{'x' * 199}…"),
        (10**1000, "<an integer of 416 bytes>"),
        (operator.add, "_operator.add"),
        (range(3), "<pickled: builtins.range, "),
        (Basket(), "<pickled: "),
    ],
)
def test_a_value_in_words(value: Any, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    payload = payload_of(ship, value)
    capsys.readouterr()  # what is packed may be tried out
    assert describe.describe_call(payload).startswith(f"{NAME}(order={shown}")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("func", "args", "kwargs", "shown"),
    [
        (ship, (1, "", 3), {"key": 4}, f"{NAME}(order=1, password='', 3, key=4)"),
        (functools.partial(ship, 1), (), {}, f"partial({NAME}, order=1)()"),
        (Basket().fill, (1,), {}, "<pickled: "),
        (operator.add, (1, 2), {}, "_operator.add(1, 2)"),
    ],
)
def test_a_call_in_words(func: Any, args: Any, kwargs: Any, shown: str) -> None:
    assert describe.describe_call(payload_of(func, *args, **kwargs)).startswith(shown)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((1, "s3cret"), {}),
        ((1,), {"API_KEY": "s3cret"}),
        (({"a": [{"Authorization": "s3cret"}]},), {}),
        (((1, {"token": ["s3cret"]}),), {}),
        ((), {"order": {"card_number": {"x": "s3cret"}}}),
    ],
    ids=["positional", "keyword", "deep", "in a tuple", "whole"],
)
def test_secrets_are_hidden_by_their_names(args: Any, kwargs: Any) -> None:
    said = describe.describe_call(payload_of(ship, *args, **kwargs))
    assert "s3cret" not in said and describe.HIDDEN in said


def test_a_project_says_what_is_secret() -> None:
    payload = payload_of(ship, {"plan": "takeover", "password": ""})
    assert "takeover" in describe.describe_call(payload)
    assert "takeover" not in describe.describe_call(payload, "plan|x")
    with pytest.raises(ConfigError, match="no regular expression"):
        config.Config(secrets="(")


def test_members_in_words() -> None:
    packed = encoder.pack([(3, "a"), None, True, Basket(), [1, [2]], {"password": "s3cret"}])
    whole = describe.describe_members(packed)
    assert whole[:3] == ("(3, 'a')", None, True)
    assert whole[3].startswith("<pickled: ")
    assert whole[4:] == ("[1, [2]]", f"{{'password': {describe.HIDDEN}}}")
    assert describe.describe_members(packed, 2)[0] == ("3", "'a'")
    assert describe.describe_members(packed, 2)[4] == ("1", "[2]")
    assert describe.describe_members(encoder.pack((7,))) == ("7",)


@pytest.mark.parametrize("value", [{1}, 3, {"a": 1}, "text"])
def test_what_has_no_members_is_said_to_have_none(value: Any) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        describe.describe_members(encoder.pack(value))


@pytest.mark.parametrize(
    ("func", "shown"),
    [
        (ship, f"{NAME}(order=…, password={describe.HIDDEN}, 3, key=4)"),
        (functools.partial(ship, 1), f"partial({NAME}, order=1)(…, <text of 6 characters>, 3, key=4)"),
        (Basket(), "<pickled: "),
    ],
)
def test_a_call_that_members_make_up(func: Any, shown: str) -> None:
    packed = encoder.pack([None, func, ("s3cret", 3), {"key": 4}])
    assert describe.describe_call_in(packed, 1, 2, 3, before=["…"], config=config.current()).startswith(shown)
    with pytest.raises(ValueError, match="cannot be read"):
        describe.describe_call_in(packed, 1, 0, 3, config=config.current())


@pytest.fixture
def refund(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[bytes]:
    """The payload of a call of a function whose module is not loaded."""
    (tmp_path / "the_shop.py").write_text("def refund(order_id, password): ...")
    (tmp_path / "a_broken_shop.py").write_text("raise SystemExit('broken')")
    monkeypatch.syspath_prepend(tmp_path)
    yield msgpack.packb(["the_shop:refund", [7, "s3cret"], {}])
    sys.modules.pop("the_shop", None)


VEILED = "the_shop.refund(7, <text of 6 characters>)"


def test_the_module_of_a_verified_call_is_loaded_for_the_names_of_its_parameters(refund: bytes) -> None:
    assert said_of(refund) == f"the_shop.refund(order_id=7, password={describe.HIDDEN})"


def test_the_module_of_a_call_that_members_make_up_is_loaded(refund: bytes) -> None:
    func = msgpack.ExtType(types.CALLABLE, msgpack.packb("the_shop:refund"))
    packed = msgpack.packb([func, msgpack.ExtType(types.TUPLE, msgpack.packb([7, "s3cret"])), {}])
    said = describe.describe_call_in(packed, 0, 1, 2, config=config.current())
    assert said == f"the_shop.refund(order_id=7, password={describe.HIDDEN})"


def test_nothing_is_loaded_for_a_body_that_never_verified(refund: bytes) -> None:
    assert said_of(refund, verified=False) == describe.describe_call(refund) == VEILED
    assert "the_shop" not in sys.modules


@pytest.mark.parametrize("refused", [{"callables": ["shop.*"]}, {"forbidden_callables": ["the_shop.*"]}], ids=str)
def test_nothing_is_loaded_that_may_not_run(refund: bytes, refused: dict[str, Any]) -> None:
    with in_memory(**refused):
        assert said_of(refund) == VEILED
        assert "the_shop" not in sys.modules
    assert describe.HIDDEN in said_of(refund)


@pytest.mark.parametrize("module", ["a_broken_shop", "no_shop_at_all"])
def test_a_module_that_cannot_be_loaded_is_no_error(refund: bytes, module: str) -> None:
    assert said_of(refund.replace(b"\xafthe_shop:refund", msgpack.packb(f"{module}:refund"))) == VEILED.replace(
        "the_shop", module
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("s3cret", "<text of 6 characters>"),
        ("", "''"),
        (b"s3cret", "<6 bytes>"),
        (4111_1111_1111_1111, "<a number of 16 digits>"),
        (uuid.UUID(int=1), "<a UUID>"),
        (["s3cret", (1, True, None)], "[<text of 6 characters>, (1, True, None)]"),
        ({"plan": {"x": "s3cret"}}, "{'plan': {'x': <text of 6 characters>}}"),
        (Colour.RED, "Colour.RED"),
        (dt.date(2026, 1, 2), "datetime.date(2026, 1, 2)"),
    ],
)
def test_a_value_whose_parameter_is_not_known_may_be_a_secret(value: Any, shown: str) -> None:
    assert describe.describe_call(payload_of(ship, 1, "", value)) == f"{NAME}(order=1, password='', {shown})"


def test_a_value_whose_parameter_is_not_known_is_bounded() -> None:
    deep: list[Any] = []
    for _ in range(500):
        deep = [deep]
    assert "…" in describe.describe_call(payload_of(ship, 1, "", deep))
    assert describe.describe_call(payload_of(ship, 1, "", list(range(5000)))).endswith("9, …])")


def test_what_is_not_here_is_not_imported() -> None:
    sys.modules.pop("wsgiref.simple_server", None)
    call = ["wsgiref.simple_server:demo_app", [msgpack.ExtType(types.ENUM, msgpack.packb(["wsgiref.x:E", "A"]))], {}]
    assert describe.describe_call(msgpack.packb(call)) == "wsgiref.simple_server.demo_app(E.A)"
    assert "wsgiref.simple_server" not in sys.modules


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        msgpack.packb(3),
        msgpack.packb([1, 2]),
        msgpack.packb(["a:b", [], 3]),
        msgpack.packb([[], [], {}]),
        msgpack.packb(["a:b", [msgpack.ExtType(types.DATETIME, b"short")], {}]),
        msgpack.packb(["a:b", [msgpack.ExtType(types.DECIMAL, b"x")], {}]),
        msgpack.packb(["a:b", [msgpack.ExtType(types.NAMED, msgpack.packb(1))], {}]),
        b"\x91" * 5000 + b"\xc0",
    ],
)
def test_bytes_that_are_no_call_are_said_to_be_none(data: bytes) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        describe.describe_call(data)
    assert said_of(data).startswith("<cannot be read: ")


def test_keys_that_collide_cost_nothing() -> None:
    call = ["a:b", [{msgpack.ExtType(types.INT, number.to_bytes(40, "big")): 1 for number in range(20_000)}], {}]
    assert describe.describe_call(msgpack.packb(call)).count(": 1") == describe.MANY


def test_a_whole_call_is_bounded() -> None:
    said = describe.describe_call(payload_of(ship, *["x" * 300] * 100))
    assert len(said) <= describe.WHOLE + 1


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (TaskRecord(id="1", envelope=pickle.dumps((print, (), {}))), "<a pickle of another library"),
        (TaskRecord(id="1", envelope=b"\xdfbroken"), "<cannot be read: DecodeError>"),
    ],
)
def test_a_record_without_a_call_says_why(record: TaskRecord, said: str) -> None:
    assert describe.describe(record, config.current()).startswith(said)


def test_a_call_comes_in_parts_by_the_names_of_parameters() -> None:
    payload = payload_of(ship, 17, "hush", 1, 2, fast=True)
    call = describe.call_of(TaskRecord(id="1", envelope=encode(Envelope(payload=payload))), config.current())
    assert call.function == NAME
    assert call.arguments == [
        ("order", "17"),
        ("password", describe.HIDDEN),
        (None, "1"),
        (None, "2"),
        ("fast", "True"),
    ]
    assert str(call) == describe.describe_call(payload)


def test_a_record_without_a_call_has_no_parts() -> None:
    with pytest.raises(ValueError, match=r"^a pickle of another library, "):
        describe.call_of(TaskRecord(id="1", envelope=pickle.dumps((print, (), {}))), config.current())
