"""Bodies that older libraries have queued: pickled triples of a callable, its args and its kwargs.

Under an allow-list, each name in such a pickle is checked before it is imported, like any callable; only plain types,
and the few entries that the bodies of those libraries name, need no pattern.
"""

from __future__ import annotations

import io
import pickle
import types
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from ..config.policy import Policy
from ..errors import CallableForbiddenError, CallableNotFoundError, DecodeError, DeferError, PermanentTaskFailure
from ..pickling import Unpickler
from ..text import one_line
from .callables import NAMED, resolve, true_name

GOOGLE = "google.appengine.ext.deferred.deferred"
"""The module of Google's `deferred` whose functions its bodies name."""
_DJANGAE = ("djangae.deferred", "djangae.tasks.deferred", "defer_djangae.deferred")
_INVOKE = frozenset(f"{module}:invoke_member" for module in (GOOGLE, "defer_core.wire.legacy", *_DJANGAE))
_STORED = f"{GOOGLE}:run_from_datastore"
ENTRIES = frozenset(
    (
        _STORED, "defer_core.wire.legacy:run_from_datastore",
        *(f"{module}:{name}" for module in _DJANGAE
          for name in ("_process_shard", "_generate_shards", "_run_from_datastore")),
        *(f"defer_djangae.in_flight:{name}" for name in ("process_shard", "generate_shards", "run_from_datastore")),
        "django.db.models.base:model_unpickle", "django.db.models.base:ModelState",
    )
)  # fmt: skip
"""The functions of older libraries, of Django and of ours that such bodies name."""
PLAIN = frozenset(
    (
        *(f"builtins:{name}" for name in "object bool int float complex str list tuple dict set frozenset".split()),
        *(f"datetime:{name}" for name in "date datetime time timedelta timezone".split()),
        *(f"collections:{name}" for name in "OrderedDict defaultdict deque Counter".split()),
        "decimal:Decimal", "uuid:UUID", "uuid:SafeUUID", "zoneinfo:ZoneInfo", "zoneinfo:ZoneInfo._unpickle",
        "zoneinfo._zoneinfo:ZoneInfo._unpickle", "pytz:_UTC", "pytz:_p", "copyreg:_reconstructor", "copyreg:__newobj__",
        "functools:partial", "django.utils.safestring:SafeString", "django.utils.safestring:SafeText",
    )
)  # fmt: skip
"""Types that are values and nothing else, and the functions by which pickle makes them."""


def load(body: bytes, policy: Policy) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    """Return the call in a legacy body. Raises CallableNotFoundError, CallableForbiddenError or DecodeError."""
    kind = _ListedUnpickler if policy.is_allow_list else _Unpickler
    try:
        func, args, kwargs = kind(io.BytesIO(body), policy).load()
        args, kwargs = tuple(args), dict(kwargs)
        if isinstance(func, partial) and func.func is _invoke and len(args) > 1:
            return _member(policy, *args[:2]), args[2:], kwargs
    except DeferError:
        raise
    except (ImportError, AttributeError) as error:
        raise CallableNotFoundError(f"The legacy task names something that is not here: {error}") from error
    except Exception as error:
        raise DecodeError(f"The legacy task cannot be unpickled: {error!r}") from error
    if not callable(func):
        raise DecodeError(f"The legacy task names {one_line(repr(func))}, which cannot be called.")
    if true_name(func) not in ENTRIES:
        policy.check(true_name(func))
    return func, args, kwargs


class _Unpickler(Unpickler):
    """Resolves the names of a body; Google's SDK is needed only for a call that it has stored."""

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}:{name}" in _INVOKE:
            return partial(_invoke, self._policy)
        try:
            return super().find_class(module, name)
        except CallableNotFoundError:
            if f"{module}:{name}" == _STORED:
                return run_from_datastore
            raise


class _ListedUnpickler(pickle._Unpickler):
    """Enforces an allow-list. It is pickle's own unpickler in Python, the only one that lets a subclass decide what a
    body may change."""

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)
    proto: int
    stack: list[Any]

    def __init__(self, file: io.BytesIO, policy: Policy) -> None:
        super().__init__(file)
        self._policy = policy
        self._found: list[Any] = []

    def find_class(self, module: str, name: str) -> Any:
        if self.proto < 3:  # written by Python 2, or in its form
            module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        given = f"{module}:{name}"
        instead = _instead(given, self._policy)
        if instead is not None:
            return instead
        _check(given, self._policy)
        try:
            found = resolve(given)
        except CallableNotFoundError:
            if given != _STORED:
                raise
            return run_from_datastore
        if given not in ENTRIES:  # Djangae's lead to ours
            _check(true_name(found), self._policy)
        self._found.append(found)
        return found

    def _build(self) -> None:
        """Set the state of a value, but never of an object that other code uses as well."""
        target = self.stack[-2]
        if isinstance(target, NAMED) or any(target is each for each in self._found):
            raise CallableForbiddenError(f"The legacy task changes {one_line(repr(target))}.")
        pickle._Unpickler.load_build(self)  # type: ignore[attr-defined]

    dispatch[pickle.BUILD[0]] = _build


def _instead(name: str, policy: Policy) -> Any:
    """Return the replacement of a function that could reach, or make, too much; None for all others."""
    if name in _INVOKE:
        return partial(_invoke, policy)
    if name == "builtins:getattr":  # by which pickle makes bound methods and nested classes
        return partial(_member, policy)
    if name == "_codecs:encode":  # by which older protocols make bytes
        return _latin
    return {"builtins:bytes": partial(_octets, bytes), "builtins:bytearray": partial(_octets, bytearray)}.get(name)


def _check(name: str, policy: Policy) -> None:
    if name not in PLAIN and name not in ENTRIES:
        policy.check(name)


def _member(policy: Policy, obj: Any, name: str) -> Any:
    """Return a method, or a class in a class, if it may be called. Raises CallableForbiddenError."""
    owner = obj if isinstance(obj, type) else type(obj)
    _check(f"{owner.__module__}:{owner.__qualname__}.{name}", policy)
    found = getattr(obj, name)
    if not callable(found):
        raise CallableForbiddenError(f"{owner.__module__}:{owner.__qualname__}.{one_line(name)} is no method.")
    if not isinstance(found, types.MethodType):  # a method in Python was written for a class that is allowed
        _check(true_name(found), policy)
    return found


def _octets(kind: Callable[..., Any], *given: Any) -> Any:
    """Make bytes of what is given, but not of a length alone, which could be huge."""
    if given and isinstance(given[0], int):
        raise DecodeError(f"The legacy task makes {given[0]} bytes of nothing.")
    return kind(*given)


def _latin(text: str, encoding: str = "latin1") -> bytes:
    return text.encode("latin1")


def _invoke(policy: Policy, obj: Any, membername: str, /, *args: Any, **kwargs: Any) -> Any:
    """Call a member as `invoke_member` does, if it may be called."""
    return _member(policy, obj, membername)(*args, **kwargs)


def invoke_member(obj: Any, membername: str, *args: Any, **kwargs: Any) -> Any:
    """Call the method `membername`; older libraries have queued bound methods in this form."""
    return getattr(obj, membername)(*args, **kwargs)


def run_from_datastore(key: str) -> None:
    """Stand in for a task whose call Google's `deferred` has stored, and which only its SDK can read. Raises
    PermanentTaskFailure."""
    raise PermanentTaskFailure(
        f"Google's deferred has stored the call under the key {key}, and its SDK is not installed: install "
        "appengine-python-standard, then re-run this dead letter."
    )
