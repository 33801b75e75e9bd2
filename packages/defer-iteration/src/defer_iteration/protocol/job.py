"""What an iteration does, and how it is packed into the row of the iteration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from defer_core.errors import CallableForbiddenError, UnserializableError
from defer_core.spi import decode, encode

from ..rows.base import KeyRangesGetter, Rows
from ..rows.sources import rows_of


@dataclass(frozen=True, kw_only=True)
class Job:
    """The rows, and what to call."""

    source: Any
    """A queryset, or a function at the top of a module that returns a queryset or Rows."""
    callback: Callable[..., Any]
    """Called as `callback(row, *args, **kwargs)`, or with a list of rows under `_batch`."""
    finalize: Callable[..., Any]
    """Called as `finalize(*args, **kwargs)` once every shard is done."""
    args: tuple[Any, ...] = ()
    """Positional arguments of both."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of both."""
    key_ranges_getter: KeyRangesGetter | None = None
    """What divides the rows, if the caller knows better."""
    on_failed: Callable[..., Any] | None = None
    """Called as `on_failed(*args, **kwargs)` once the iteration is `failed` or `held`."""
    throttle: Callable[[], Any] | None = None
    """Called without arguments between pages; returns how many seconds to wait."""

    def rows(self, order_field: str) -> Rows:
        """Return the rows in the order of a field. Raise IterationRefusedError."""
        return rows_of(self.source, order_field, self.key_ranges_getter)

    @property
    def call(self) -> Callable[[Any], Any]:
        """The callback with its further arguments, to be called with a row or a list of rows."""
        callback, args, kwargs = self.callback, self.args, self.kwargs
        if not (args or kwargs):
            return callback
        return lambda row: callback(row, *args, **kwargs)


_PARTS = ("queryset", "callback", "finalize", "args", "kwargs", "key_ranges_getter", "_on_failed", "_throttle")
"""What the caller calls the members of a packed job."""
_ALWAYS = 6
"""How many of them are always there; an older release can unpack a job that has no others."""


def pack(job: Job) -> bytes:
    """Return a job as bytes. Raise UnserializableError or CallableForbiddenError, with a path that begins with
    `args[…]`, `kwargs[…]` or the name of another argument."""
    source = job.source if callable(job.source) else _pickled().pack(job.source)
    parts = [source, job.callback, job.finalize, tuple(job.args), dict(job.kwargs), job.key_ranges_getter]
    parts += [job.on_failed, job.throttle]
    while len(parts) > _ALWAYS and parts[-1] is None:
        parts.pop()
    try:
        return encode(parts)
    except (UnserializableError, CallableForbiddenError) as error:
        path: str = getattr(error, "path", "")
        if not path.startswith("["):
            raise
        name, start = _PARTS[int(path[1])], len("[0]")
        raise type(error)(name + str(error)[start:], path=name + path[start:]) from error


def unpack(packed: bytes) -> Job:
    """Return the job of its bytes. Raise DecodeError, NotYetReadableError or HeldError."""
    source, *parts = decode(packed)
    source = source if callable(source) else _pickled().unpack(source)
    members = ("callback", "finalize", "args", "kwargs", "key_ranges_getter", "on_failed", "throttle")
    return Job(source=source, **dict(zip(members, parts, strict=False)))


def _pickled() -> Any:
    """Return what packs querysets, which needs Django: all other sources do without."""
    from ..rows import pickled

    return pickled
