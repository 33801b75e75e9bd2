"""What type checkers know of `defer` and `adefer`: for a call without options, whether it fits the callable; for one
with an option, whether that has the right type. No syntax can express both."""

# mypy: disable-error-code="overload-cannot-match"
# (a callable that takes the option itself would match the first, and is called with the rest)

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, ParamSpec, Protocol, TypeVar, overload

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
_Func = Callable[..., object]
_Seconds = float | timedelta | None


class Deferring(Protocol[R_co]):
    """Takes a callable, its arguments and underscored options."""

    # fmt: off
    @overload
    def __call__(self, func: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(self, func: _Func, /, *args: Any, _countdown: _Seconds, **kwargs: Any) -> R_co: ...
    @overload
    def __call__(self, func: _Func, /, *args: Any, _eta: datetime | None, **kwargs: Any) -> R_co: ...
    @overload
    def __call__(self, func: _Func, /, *args: Any, _name: str | None, **kwargs: Any) -> R_co: ...
    @overload
    def __call__(self, func: _Func, /, *args: Any, _queue: str | None, **kwargs: Any) -> R_co: ...
    @overload
    def __call__(self, func: _Func, /, *args: Any, _target: str | None, **kwargs: Any) -> R_co: ...
    @overload
    def __call__(self, func: _Func, /, *args: Any, _service: str | None, **kwargs: Any) -> R_co: ...
    @overload
    def __call__(self, func: _Func, /, *args: Any, _version: str | None, **kwargs: Any) -> R_co: ...
    @overload
    def __call__(self, func: _Func, /, *args: Any, _instance: str | None, **kwargs: Any) -> R_co: ...
    @overload
    def __call__(self, func: _Func, /, *args: Any, _url: str | None, **kwargs: Any) -> R_co: ...
    @overload
    def __call__(self, func: _Func, /, *args: Any, _headers: Mapping[str, str] | None, **kwargs: Any) -> R_co: ...
    @overload
    def __call__(self, func: _Func, /, *args: Any, _retry_options: object, **kwargs: Any) -> R_co: ...
    @overload
    def __call__(self, func: _Func, /, *args: Any, _transactional: bool | None, **kwargs: Any) -> R_co: ...
    @overload
    def __call__(self, func: _Func, /, *args: Any, _using: str | None, **kwargs: Any) -> R_co: ...
    @overload
    def __call__(self, func: _Func, /, *args: Any, _small_task: bool | None, **kwargs: Any) -> R_co: ...
    @overload
    def __call__(self, func: _Func, /, *args: Any, _wipe_related_caches: bool | None, **kwargs: Any) -> R_co: ...
    @overload
    def __call__(self, func: _Func, /, *args: Any, _dispatch_deadline: _Seconds, **kwargs: Any) -> R_co: ...
    # fmt: on


def typed(function: Callable[..., R_co]) -> Deferring[R_co]:
    """Return the function itself."""
    return function
