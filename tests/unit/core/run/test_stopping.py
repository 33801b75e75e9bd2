"""Signals that ask a process to stop, sent to real ones."""

from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from defer_core import ConfigError, install_signal_handlers

PROGRAM = """
import os, signal, sys, threading
from defer_core import install_signal_handlers, is_stopping

def work():
    while not is_stopping():
        pass
    print("handed over")

def wait():
    threading.Thread(target=work).start()
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(30)
"""


def run(*lines: str) -> tuple[int, str]:
    """The exit status of a program with these lines, and what it said."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + "\n".join(lines)], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_nothing_is_installed_unless_asked() -> None:
    assert run("print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)") == (0, "True\n")


def test_a_signal_without_a_handler_ends_the_process_once_its_threads_have_handed_over() -> None:
    assert run("install_signal_handlers()", "wait()") == (128 + signal.SIGTERM, "handed over\n")


def test_the_previous_handler_is_called() -> None:
    status = run("signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))", "install_signal_handlers()", "wait()")
    assert status == (3, "handed over\n")


def test_an_ignored_signal_only_asks() -> None:
    ignored = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    kill = "os.kill(os.getpid(), signal.SIGTERM)"
    assert run(ignored, "install_signal_handlers()", kill, "print(is_stopping())") == (0, "True\n")


def test_handlers_are_refused_outside_the_main_thread() -> None:
    with ThreadPoolExecutor(1) as pool, pytest.raises(ConfigError, match="main thread"):
        pool.submit(install_signal_handlers).result()
