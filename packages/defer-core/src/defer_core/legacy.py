"""Bodies that older libraries have queued: pickled triples of a callable, its args and its kwargs."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from .callables import label
from .errors import CallableNotFoundError, DecodeError, DeferError, PermanentTaskFailure
from .pickling import Unpickler
from .policy import Policy

GOOGLE = "google.appengine.ext.deferred.deferred"
"""The module of Google's `deferred` whose functions its bodies name."""

LIBRARIES = (
    "defer_core.",
    "defer_djangae.",
    "djangae.deferred",
    "djangae.tasks.deferred",
    "google.appengine.ext.deferred.",
)
"""What the modules of the functions begin with that bodies of older libraries call, for others."""


def load(body: bytes, policy: Policy) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    """The call in a legacy body. Raises CallableNotFoundError, CallableForbiddenError or DecodeError."""
    try:
        func, args, kwargs = _Unpickler(io.BytesIO(body), policy).load()
    except DeferError:
        raise
    except (ImportError, AttributeError) as error:
        raise CallableNotFoundError(f"The legacy task names something that is not here: {error}") from error
    except Exception as error:
        raise DecodeError(f"The legacy task cannot be unpickled: {error!r}") from error
    if not callable(func):
        raise DecodeError(f"The legacy task names {func!r}, which cannot be called.")
    _check(func, tuple(args), policy)
    return func, tuple(args), dict(kwargs)


def _check(func: Callable[..., Any], args: tuple[Any, ...], policy: Policy) -> None:
    """An allow-list holds for what is called; the libraries' own functions pass, and what `invoke_member` calls does
    not."""
    name = label(func)
    if not name.startswith(LIBRARIES):
        policy.check(name)
    elif name.endswith(":invoke_member") and len(args) > 1:
        policy.check(f"{type(args[0]).__module__}:{type(args[0]).__qualname__}.{args[1]}")


class _Unpickler(Unpickler):
    """Needs Google's SDK for what only that can do."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == (GOOGLE, "invoke_member"):
            return invoke_member
        try:
            return super().find_class(module, name)
        except CallableNotFoundError:
            if (module, name) == (GOOGLE, "run_from_datastore"):
                return run_from_datastore
            raise


def invoke_member(obj: Any, membername: str, *args: Any, **kwargs: Any) -> Any:
    """Call the method of that name: how a bound method was queued."""
    return getattr(obj, membername)(*args, **kwargs)


def run_from_datastore(key: str) -> None:
    """A task whose call Google's `deferred` has stored: only its SDK can read it. Raises PermanentTaskFailure."""
    raise PermanentTaskFailure(
        f"Google's deferred has stored the call under the key {key}, and its SDK is not installed: install "
        "appengine-python-standard, and run this dead letter again."
    )
