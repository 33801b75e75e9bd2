"""Stopping on request: a process that is asked to end lets long tasks hand over what is left of them."""

from __future__ import annotations

from dataclasses import dataclass
from types import FrameType
from typing import Any

from ..errors import ConfigError, TaskExitedError

asked: list[int] = []
"""The signals that came: a list, because a loop can check cheaply whether it is empty, and a handler can append."""


def is_stopping() -> bool:
    """Return True if this process has been asked to end. Iterations check it after each row; your own tasks can,
    too."""
    return bool(asked)


def failure_of(error: Exception | SystemExit) -> Exception:
    """Return what a task has raised, as its failure: its own `sys.exit()` ends the attempt, not the process. Raises the
    SystemExit of a process that was asked to end."""
    if not isinstance(error, SystemExit):
        return error
    if asked:
        raise error
    failure = TaskExitedError(f"The task called sys.exit({error.code!r}).")
    failure.__cause__ = error
    return failure


def install_signal_handlers(*signals: int) -> None:
    """Make each signal (SIGTERM, if none is given) ask what runs here to stop. Call it where the program starts, and
    after the server has set its own handlers, because those replace what was there.

    The previous handler of the signal is called next; a second call adds nothing. A signal that would have ended the
    process at once raises SystemExit in the main thread instead, which lets other threads finish. Raises ConfigError
    outside the main thread.
    """
    from signal import SIGTERM

    for number in signals or (SIGTERM,):
        _chain(number)


def with_signal_handlers(app: Any) -> Any:
    """Return an ASGI application that calls `install_signal_handlers()` when its server starts it (or, if the server
    has no lifespan, at its first request): by then the server has set its own handlers."""
    import threading

    async def with_them(scope: Any, receive: Any, send: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            install_signal_handlers()
        await app(scope, receive, send)

    return with_them


@dataclass(frozen=True)
class _Handler:
    """Records a signal, and calls the handler that was there before."""

    previous: Any

    def __call__(self, number: int, frame: FrameType | None) -> None:
        asked.append(number)
        if callable(self.previous):
            self.previous(number, frame)
        elif self.previous == 0:  # signal.SIG_DFL
            raise SystemExit(128 + number)


def _chain(number: int) -> None:
    import signal

    previous = signal.getsignal(number)
    if isinstance(previous, _Handler):
        return
    try:
        signal.signal(number, _Handler(previous))
    except ValueError as error:
        raise ConfigError(
            f"Signal {number} cannot be handled: {error}. Call install_signal_handlers() in the main thread."
        ) from error
