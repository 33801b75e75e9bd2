"""A task as decoded from its body."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..nouns import fast_init
from ..record import TaskRecord
from ..stores.base import TaskStore
from .callables import label
from .envelope import Envelope


@fast_init
@dataclass(frozen=True, kw_only=True)
class DecodedTask:
    """A call, with the envelope and the record that it came in."""

    func: Callable[..., Any]
    """What to call."""
    args: Sequence[Any]
    """Its positional arguments."""
    kwargs: Mapping[str, Any]
    """Its keyword arguments."""
    sealed: Envelope
    """The envelope it came in."""
    record: TaskRecord | None = None
    """The record of a stored payload."""
    store: TaskStore | None = None
    """The store that has the record."""

    @property
    def label(self) -> str:
        """Name of the callable, for logs and lists."""
        return label(self.func, self.args)
