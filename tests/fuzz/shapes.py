"""Bodies that have tried to go round an allow-list, or to cost more than they weigh: seeds for both fuzzers."""

from __future__ import annotations

import pickle
from typing import Any

import msgpack

from defer_core.wire import envelope, frame
from defer_core.wire import types as ext

NOTE = "compat.wire_calls:note"
MODULE = NOTE.partition(":")[0]
P = 2**61 - 1
"""Numbers that this divides have one hash."""


def _packed(code: int, plain: Any) -> msgpack.ExtType:
    return msgpack.ExtType(code, msgpack.packb(plain))


def _body(call: Any, **fields: Any) -> bytes:
    sealed = envelope.Envelope(payload=msgpack.packb(call), created=1_799_999_999.0, **fields)
    return frame.wrap(envelope.encode(sealed))


def _big(number: int) -> msgpack.ExtType:
    return msgpack.ExtType(ext.INT, number.to_bytes(9, "big", signed=True))


_UNLOADED = _packed(ext.ENUM, ["wsgiref.simple_server:X", "Y"])
_CALLS = [
    [f"{MODULE}:{name}", [], {}]
    for name in (
        "note.__globals__.clear", "note.__class__", "note.__setattr__", "__builtins__.get", "__loader__.get_data",
        "sys.exit", "os.system", "defer_core.config.reset", "ran.append", "nothing\nCRITICAL",
    )
] + [
    [["method", [1], "append"], [2], {}],
    [["method", _packed(ext.CALLABLE, NOTE), "__setattr__"], ["x", 1], {}],
    [["partial", f"{MODULE}:ran.append", [_UNLOADED], {}], [], {}],
    [["partial", NOTE, [1], {}], [_packed(ext.CALLABLE, ["partial", "os:system", ["true"], {}])], {}],
    [["instance", _packed(ext.CALLABLE, ["partial", NOTE, [], {}])], [], {}],
    [NOTE, [_UNLOADED, _packed(ext.TUPLE, [_UNLOADED]), {_UNLOADED: 1}], {}],
    [NOTE, [_packed(ext.ENUM, ["concurrent.futures:ProcessPoolExecutor", "Y"])], {}],
    [NOTE, [_packed(ext.NDB_KEY, ["cloud", "p", None, None, ["Kind", 1]])], {}],
    [NOTE, [dict.fromkeys(_big(number * P) for number in range(1, 120))], {}],
    [NOTE, [_packed(ext.SET, [_big(number * P) for number in range(1, 120)])], {}],
    [NOTE, [_packed(ext.NAMED, ["django.Model", [_packed(ext.CALLABLE, NOTE), [], {"x": 1}]])], {}],
]  # fmt: skip
_NOTE = pickle.GLOBAL + NOTE.replace(":", "\n").encode() + b"\n"
_PICKLES = [
    b"(" + _NOTE + b"(c__builtin__\ngetattr\n(" + _NOTE + b"V__globals__\ntRt(dt.",
    b"(" + _NOTE + b"(" + _NOTE + b"(N(Vx\nI1\ndtbt(dt.",
    b"(cdefer_core.config\nreset\n(t(dt.",
    b"(cdefer_core.legacy\ninvoke_member\n(" + _NOTE + b"V__setattr__\nVx\nI1\nt(dt.",
    b"\x80\x04(\x8c" + bytes([len(MODULE)]) + MODULE.encode() + b"\x8c\x16note.__globals__.clear\x93)}t.",
    b"(" + _NOTE + b"(c__builtin__\nbytearray\n(I1000000000000\ntRt(dt.",
]

SHAPES = [*map(_body, _CALLS), _body([NOTE, [], {}], trace={"defer-queue": "mail"}), *_PICKLES]
