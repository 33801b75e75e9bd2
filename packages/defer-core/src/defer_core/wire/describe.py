"""A packed call in words, for people. Nothing in it is revived, unpickled or looked up.

So it works for classes that are gone, and for bodies that are not trusted. Values whose names suggest a secret are
hidden. Positional ones have the names of the parameters: of a verified task the callable's module is imported for them,
as its run does. What has no name may be a secret.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from types import FunctionType, MemberDescriptorType
from typing import Any
from uuid import UUID

import msgpack

from ..config import Config
from ..config.policy import Policy
from ..errors import DeferError
from ..record import TaskRecord
from . import callables, envelope, frame
from . import types as ext
from .decoder import MAX_LEVELS

SECRETS = Config.secrets
HIDDEN = "••••••"
LONG, MANY, DEEP, WHOLE = 200, 10, 8, 2000
"""Characters of a text, members of a collection, levels of them, and characters of a call, that are shown."""
CARD = 10**11
"""The least number that may be a card's."""
_BRACKETS = {ext.TUPLE: "()", ext.SET: "{}", ext.FROZENSET: "{}"}
_describers: dict[str, Callable[[Any], str]] = {}


def register_describer(name: str, describe: Callable[[Any], str]) -> None:
    """Say how a value of the type registered as `name` is shown, given what its `encode` returned. Mappings in it are
    `Pairs`."""
    _describers[name] = describe


class Pairs(list[tuple[Any, Any]]):
    """A mapping as a list of pairs: its keys may be unhashable, or chosen to collide."""

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key."""
        return next((value for each, value in self if each == key), default)


class _Words(str):
    """Text that is shown as it stands."""

    __slots__ = ()


class _Callable(_Words):
    """A callable that travels by name, and its reference."""

    __slots__ = ("ref",)
    ref: Any


class _Described(_Words):
    """A value of a registered type, and what its `encode` returned."""

    __slots__ = ("plain",)
    plain: Any


@dataclass(frozen=True)
class _Members:
    brackets: str
    values: list[Any]


@dataclass(frozen=True)
class CallInWords:
    """A call, for people."""

    function: str
    """Its name, as `shop.tasks.ship`."""
    arguments: Sequence[tuple[str | None, str]]
    """The name and the value of each argument; the name is None if it is not known."""

    def listed(self) -> str:
        """Return the arguments, as `order=<shop.Order 17>, fast=True`."""
        return ", ".join(value if name is None else f"{name}={value}" for name, value in self.arguments)

    def __str__(self) -> str:
        text = f"{self.function}({self.listed()})"
        return text if len(text) <= WHOLE else f"{text[:WHOLE]}…"


def describe(record: TaskRecord, config: Config) -> str:
    """Return the call of a record in words, as `shop.tasks.ship(order=<shop.Order 17>, fast=True)`, or why there is
    none."""
    try:
        return str(call_of(record, config))
    except ValueError as error:
        return f"<{error}>"


def call_of(record: TaskRecord, config: Config) -> CallInWords:
    """Return the call of a record. If it is verified, import the module of what it calls, as far as the configuration
    lets it run. Raises ValueError saying why there is no call."""
    if not envelope.is_envelope(record.envelope):
        raise ValueError(f"a pickle of another library, {len(record.envelope)} bytes")
    try:
        payload = record.payload or envelope.decode(record.envelope).payload
        policy = config.policy if record.verified else None
        call = None if payload is None else _call_in(payload, config.secrets, policy)
    except (DeferError, ValueError) as error:
        raise ValueError(f"cannot be read: {type(error).__name__}") from error
    if call is None:
        raise ValueError("its payload is not here")
    return call


def describe_call(payload: bytes, secrets: str = SECRETS) -> str:
    """Return the call of a payload in words; nothing is imported. Raises ValueError for a payload that is not a
    call."""
    return str(_call_in(payload, secrets, None))


def _call_in(payload: bytes, secrets: str, policy: Policy | None) -> CallInWords:
    with _readable():
        ref, args, kwargs = _read(payload, 0)
        _load(ref, policy)
        if getattr(_found(ref), "calls_its_first", False):  # a Django task's result, backend, queue and time follow
            ref, args, kwargs = _ref_in(args[0]), args[-2], args[-1]
            _load(ref, policy)
        return _call(ref, args, kwargs, _pattern(secrets))


def describe_call_in(
    packed: bytes, callee: int, args: int, kwargs: int, *, before: Sequence[str] = (), config: Config
) -> str:
    """Return in words the call that members of a packed list make up, given their indexes; `before` is shown for the
    arguments before `args`. What is called is imported as for `call_of`: the list is to be trusted. Raises ValueError
    for bytes that are no such list."""
    with _readable():
        members = _read(packed, 0)
        ref = _ref_in(members[callee])
        _load(ref, config.policy)
        given = [*map(_Words, before), *members[args].values]
        return str(_call(ref, given, members[kwargs], _pattern(config.secrets)))


def describe_members(packed: bytes, levels: int = 1, secrets: str = SECRETS) -> tuple[Any, ...]:
    """Return the members of a packed list or tuple, each in words, as a tuple; with more levels those that are lists or
    tuples as such tuples. None, True and False stay as they are. Raises ValueError for bytes that are neither."""
    with _readable():
        members: tuple[Any, ...] = _members(_read(packed, 0), levels, _pattern(secrets))
        if type(members) is not tuple:
            raise TypeError
        return members


@contextmanager
def _readable() -> Iterator[None]:
    """Raise ValueError for bytes that are not what they should be: they may be from anyone."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"It cannot be read: {type(error).__name__}") from error


def _call(ref: Any, args: Iterable[Any], kwargs: Iterable[tuple[Any, Any]], hides: re.Pattern[str]) -> CallInWords:
    named = _hidden([*_positional(ref, args), *kwargs], hides, 0)
    return CallInWords(_ref(ref, hides), [(None if name is None else _name(name), value) for name, value in named])


def _members(value: Any, levels: int, hides: re.Pattern[str]) -> Any:
    values = value.values if isinstance(value, _Members) and value.brackets == "()" else value
    if levels and type(values) is list:
        return tuple(_members(each, levels - 1, hides) for each in values)
    return value if value is None or isinstance(value, bool) else _text(value, hides, 0)


@lru_cache(maxsize=8)
def _pattern(secrets: str) -> re.Pattern[str]:
    return re.compile(secrets, re.IGNORECASE)


def _read(data: bytes, depth: int) -> Any:
    if depth > MAX_LEVELS:
        return _Words("…")

    def extended(code: int, inner: bytes) -> Any:
        return _of_ext(code, inner, depth)

    return msgpack.unpackb(
        data, ext_hook=extended, object_pairs_hook=Pairs, strict_map_key=False, unicode_errors="backslashreplace"
    )


def _of_ext(code: int, data: bytes, depth: int) -> Any:
    how = ext.READERS.get(code)
    if code == ext.INT and len(data) > 100:
        return _Words(f"<an integer of {len(data)} bytes>")
    if how is not None:
        from_bytes, size = how
        return from_bytes(data[:size] if size else data)
    if code == ext.PICKLE:
        return _Words(f"<pickled: {_class_in(data)}{len(data)} bytes>")
    inner = _read(data, depth + 1)
    if code in _BRACKETS:
        return _Members(_BRACKETS[code], inner)
    if code == ext.NAMED:
        described = _Described(_described(*inner))
        described.plain = inner[1]
        return described
    if code == ext.ENUM:
        ref, name, *value = inner
        return _Words(f"{ref.rpartition(':')[2]}.{name or value[0]}")
    if code == ext.CALLABLE:
        named = _Callable(_ref(inner, _pattern(SECRETS)))
        named.ref = inner
        return named
    return _Words(f"<type {code}, {len(data):,} bytes>")


def _described(name: str, plain: Any) -> str:
    try:
        return _describers[name](plain)
    except Exception:  # unknown, or of another release
        return f"<{name}>"


def _class_in(data: bytes) -> str:
    """Return the class that a pickle begins with, from its text alone."""
    found = re.search(rb"\x8c.([\w.]+)\x94\x8c.([\w.]+)\x94\x93", data[:300])
    return f"{found[1].decode()}.{found[2].decode()}, " if found else ""


def _ref(ref: Any, hides: re.Pattern[str]) -> str:
    match ref:
        case str():
            return ref.replace(":", ".")
        case ["method", owner, str() as name]:
            return f"{_text(owner, hides, 0)}.{name}"
        case ["partial", inner, list() as args, list() as kwargs]:
            given = [value if name is None else f"{_name(name)}={value}" for name, value in
                     _hidden([*_positional(inner, args), *kwargs], hides, 0)]  # fmt: skip
            return f"partial({', '.join([_ref(inner, hides), *given])})"
        case ["instance", owner]:
            return _text(owner, hides, 0)
    raise ValueError("It does not say what to call.")


def _ref_in(value: Any) -> Any:
    """Return the Ref of a callable among the values."""
    return getattr(value, "ref", ["instance", value])


def _load(ref: Any, policy: Policy | None) -> None:
    """Import the module of what a Ref calls, if it may be run; without a policy nothing may be."""
    if name := _name_of(ref) if policy else "":
        _import(name, policy)


@lru_cache(maxsize=256)  # what cannot be imported is not tried again for each row of a list
def _import(name: str, policy: Policy) -> None:
    with suppress(Exception):
        policy.check(name)
        callables.resolve(name)


def _positional(ref: Any, args: Iterable[Any]) -> list[tuple[str | None, Any]]:
    """Return positional arguments, each with the name of the parameter that takes it; where that is not known, without
    what may be a secret."""
    args, names = list(args), _parameters(_found(ref))
    return [*zip(names, args, strict=False), *((None, _veiled(each)) for each in args[len(names) :])]


def _parameters(found: Any) -> list[str]:
    """Return the names of the positional parameters of a plain function, or of the one that is a Django task's."""
    of_task = None if callable(found) else _attribute(found, "func")
    function = of_task or found
    if type(function) is not FunctionType:
        return []
    parameters = inspect.signature(function, follow_wrapped=False).parameters.values()
    names = [each.name for each in parameters if each.kind <= each.POSITIONAL_OR_KEYWORD]
    return names[1:] if of_task and _attribute(found, "takes_context") is True else names


def _attribute(found: Any, name: str) -> Any:
    """Return an attribute as it is stored: no property is called."""
    value = inspect.getattr_static(found, name, None)
    return value.__get__(found) if isinstance(value, MemberDescriptorType) else value


def _found(ref: Any) -> Any:
    """Return what a name leads to, if its module is loaded, else None; nothing is called to find it."""
    if not isinstance(ref, str):
        return None
    module, _, qualname = ref.partition(":")
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, "__dict__", {}).get(part)
    return found


def _veiled(value: Any, depth: int = 0) -> Any:
    """Return a value without what may be a secret in it: of a text, bytes or a long number only their length."""
    if depth > DEEP:
        return _Words("…")
    match value:
        case _Described() if isinstance(value.plain, str | bytes):
            return _veiled(value.plain)
        case _Words() | bool() | "":
            return value
        case str():
            return _Words(f"<text of {len(value):,} characters>")
        case bytes():
            return _Words(f"<{len(value):,} bytes>")
        case int() if abs(value) >= CARD:
            return _Words(f"<a number of {len(str(abs(value)))} digits>")
        case UUID():
            return _Words("<a UUID>")
        case Pairs():
            return Pairs((key, _veiled(each, depth + 1)) for key, each in value[: MANY + 1])
        case list():
            return [_veiled(each, depth + 1) for each in value[: MANY + 1]]
        case _Members(brackets, values):
            return _Members(brackets, _veiled(values, depth))
    return value


def _hidden(pairs: Iterable[tuple[Any, Any]], hides: re.Pattern[str], depth: int) -> list[tuple[Any, str]]:
    return [(name, HIDDEN if _is_secret(name, value, hides) else _text(value, hides, depth)) for name, value in pairs]


def _is_secret(name: Any, value: Any, hides: re.Pattern[str]) -> bool:
    return isinstance(name, str) and value not in (None, "") and hides.search(name) is not None


def _name(name: Any) -> str:
    return repr(name)[1:-1] if isinstance(name, str) else repr(name)


def _text(value: Any, hides: re.Pattern[str], depth: int) -> str:
    if depth > DEEP:
        return "…"
    match value:
        case _Words():
            return str(value)
        case Pairs():
            shown = [f"{_text(key, hides, depth + 1)}: {text}" for key, text in _hidden(value[:MANY], hides, depth + 1)]
            return _within("{}", shown, len(value))
        case list():
            return _within("[]", [_text(each, hides, depth + 1) for each in value[:MANY]], len(value))
        case _Members(brackets, values):
            return _within(brackets, [_text(each, hides, depth + 1) for each in values[:MANY]], len(values))
        case bytes() if len(value) > 40:
            return f"<{len(value):,} bytes>"
    text = repr(value[: LONG + 1] if isinstance(value, str) else value)
    return text if len(text) <= LONG else f"{text[:LONG]}…"


def _within(brackets: str, shown: list[str], count: int) -> str:
    more = ["…"] if count > len(shown) else []
    comma = "," if brackets == "()" and count == 1 else ""
    return f"{brackets[0]}{', '.join([*shown, *more])}{comma}{brackets[1]}"


def callable_in(body: bytes) -> str:
    """Return the `module:qualname` that a task's body calls, or the name of a method; nothing of it is verified.

    Empty if the body does not have it: its call is kept in a store, or it is no task of defer.
    """
    try:
        payload = envelope.decode(frame.unwrap(body)).payload if frame.is_framed(body) else None
        if payload is None:
            return ""
        unpacker = msgpack.Unpacker(strict_map_key=False, unicode_errors="surrogatepass")
        unpacker.feed(payload)
        unpacker.read_array_header()
        return _name_of(unpacker.unpack())
    except Exception:  # anyone may have sent these bytes
        return ""


def _name_of(ref: Any) -> str:
    match ref:
        case str():
            return ref
        case ["partial", inner, *_]:
            return _name_of(inner)
        case ["method", _, str(name)]:
            return name
    return ""
