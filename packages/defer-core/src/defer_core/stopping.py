"""Stopping when asked: a process that is told to end lets long tasks hand over what is left of them."""

from __future__ import annotations

from types import FrameType

from .errors import ConfigError

asked: list[int] = []
"""The signals that came: a list, because loops can afford to ask whether it is empty, and a handler to append."""


def is_stopping() -> bool:
    """Whether this process has been told to end. Iterations ask it after each row; tasks of your own may, too."""
    return bool(asked)


def install_signal_handlers(*signals: int) -> None:
    """Have each signal (SIGTERM, if none is given) ask what runs here to stop; call it once, where the program starts.

    What handled the signal before is called next. A signal that would have ended the process at once raises SystemExit
    in the main thread instead, which lets other threads finish. Raises ConfigError outside the main thread.
    """
    from signal import SIGTERM

    for number in signals or (SIGTERM,):
        _chain(number)


def _chain(number: int) -> None:
    import signal

    def handle(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        if callable(previous):
            previous(number, frame)
        elif previous is signal.SIG_DFL:
            raise SystemExit(128 + number)

    previous = signal.getsignal(number)
    try:
        signal.signal(number, handle)
    except ValueError as error:
        raise ConfigError(
            f"Signal {number} cannot be handled: {error}. Call install_signal_handlers() in the main thread."
        ) from error
