"""Takes due tasks out of the queue's file and delivers them; what a crash of it interrupts is delivered again."""

from __future__ import annotations

import logging
import os
import queue
import secrets
import socket
import sqlite3
import threading
import time
from functools import partial
from pathlib import Path
from typing import Self

from defer_core import clock
from defer_core.config import refuse_on_google_cloud
from defer_core.errors import ConfigError

from . import retry
from .queue import DurableQueue
from .queued import QueuedTask, Settled
from .target import ServerAbsentError, Target, WsgiApp, as_target

log = logging.getLogger("defer.local")

POLL = 0.02
"""Seconds between two looks for due tasks."""
BEAT, BEAT_LASTS = 5.0, 20.0
"""Seconds between two signs of life of a dispatcher, and after which one without a sign is taken for dead."""
_living: set[str] = set()
"""The dispatchers of this process."""


class Dispatcher:
    """Delivers the tasks of `file` to `target`: a base URL, a WSGI application, or a Target; up to `concurrency` at a
    time. Several may share a file. Raises ConfigError on Google Cloud."""

    def __init__(self, *, file: str | Path | None = None, target: str | WsgiApp | Target, concurrency: int = 8) -> None:
        refuse_on_google_cloud("The local queue")
        if concurrency < 1:
            raise ConfigError(f"concurrency is {concurrency}: it is at least 1.")
        self.queue = DurableQueue(file)
        self.target = as_target(target)
        self.concurrency = concurrency
        self.id = f"{os.getpid()}-{secrets.token_hex(8)}"
        self._unsettled: list[Settled] = []
        self._running: dict[tuple[str, str], QueuedTask] = {}
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._absent = False
        self._pause = POLL

    def start(self) -> None:
        """Begin to deliver, in threads. Raises ConfigError where the file cannot be opened."""
        if self._thread is not None:
            return
        self._secret = self.queue.secret()
        self._stopping.clear()
        _living.add(self.id)
        self._beat()
        # new ones, for a request that outlived the last stop still has the old ones
        self._jobs: queue.SimpleQueue[QueuedTask | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[Settled] = queue.SimpleQueue()
        work = partial(self._work, self._jobs, self._results)
        self._workers = [
            threading.Thread(target=work, name=f"defer-local-{number}", daemon=True)
            for number in range(self.concurrency)
        ]
        for worker in self._workers:
            worker.start()
        self._thread = threading.Thread(target=self._loop, name="defer-local", daemon=True)
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Take no more tasks, wait up to `timeout` seconds for the requests that run, and give the rest back to the
        queue: they are delivered again at the next start."""
        if self._thread is None:
            return
        self._until = time.monotonic() + timeout
        self._stopping.set()
        self._thread.join()
        self._thread = None
        for _ in self._workers:
            self._jobs.put(None)
        for worker in self._workers:  # those of requests that outlive this end by themselves
            worker.join(max(self._until - time.monotonic(), 0.0))
        self._running.clear()
        self.queue.close()

    def run_until_idle(self, timeout: float = 30.0) -> None:
        """Deliver (in threads of its own unless started) until no task is due, in hand or waiting to be repeated. Tasks
        with an ETA to come stay. Raises TimeoutError after `timeout` seconds."""
        started, until = self._thread is not None, time.monotonic() + timeout
        self.start()
        try:
            while not self.queue.is_idle(clock.now()):
                if time.monotonic() > until:
                    raise TimeoutError(f"The queue {self.queue.file.path} was not idle within {timeout:g} s.")
                time.sleep(POLL)
        finally:
            if not started:
                self.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()

    # --- the thread that alone writes to the file ---------------------------------------------------------------------

    def _loop(self) -> None:
        next_beat = time.monotonic() + BEAT
        while not self._stopping.is_set():
            try:
                self._turn()
                if time.monotonic() > next_beat:
                    self._beat()
                    next_beat = time.monotonic() + BEAT
            except Exception:
                log.exception("The queue %s cannot be used; trying again.", self.queue.file.path)
                self._stopping.wait(1.0)
        try:
            self._finish()
        except sqlite3.Error:
            log.exception("The queue %s was not left in order: the next start sees to it.", self.queue.file.path)
        finally:
            _living.discard(self.id)
            self.queue.close()

    def _turn(self) -> None:
        """Wait for results, or for time to look; then settle and lease in one transaction."""
        self._collect(self._pause)
        began, now, free = time.monotonic(), clock.now(), self.concurrency - len(self._running)
        leased: list[QueuedTask] = []
        if self._unsettled or (free and self.queue.has_due(now)):
            leased = self.queue.turn(self.id, self._unsettled, limit=free, now=now)
            self._unsettled.clear()
        for task in leased:
            self._running[task.queue, task.name] = task
            self._jobs.put(task)
        # a look in vain past a great many tasks that may not run (a paused queue) is not to eat the processor
        self._pause = POLL if leased else min(max(POLL, 20 * (time.monotonic() - began)), 1.0)

    def _collect(self, wait: float) -> None:
        """Take over the results that are there, having waited for a first one."""
        try:
            while True:
                settled = self._results.get(timeout=wait) if wait else self._results.get_nowait()
                self._running.pop((settled.task.queue, settled.task.name), None)
                self._unsettled.append(settled)
                wait = 0.0
        except queue.Empty:
            return

    def _finish(self) -> None:
        while self._running and (left := self._until - time.monotonic()) > 0:
            self._collect(left)
        self.queue.turn(self.id, self._unsettled, limit=0, now=clock.now())
        self._unsettled.clear()
        if left_over := self._take_back([self.id]):
            log.warning("Stopped with %d requests under way: their tasks will be delivered again.", left_over)

    # --- dispatchers that are gone ------------------------------------------------------------------------------------

    def _beat(self) -> None:
        """Say that this one lives, and take over the tasks of those that do not."""
        self.queue.beat(self.id, socket.gethostname(), os.getpid(), clock.now() + BEAT_LASTS)
        gone = [row["id"] for row in self.queue.dispatchers() if row["id"] != self.id and _is_gone(row)]
        if gone and (count := self._take_back(gone)):
            log.warning("Taking over %d tasks of a dispatcher that is gone.", count)

    def _take_back(self, owners: list[str]) -> int:
        return self.queue.take_back(owners, lambda task: retry.interrupted(task, clock.now()))

    # --- the threads that deliver -------------------------------------------------------------------------------------

    def _work(self, jobs: queue.SimpleQueue[QueuedTask | None], results: queue.SimpleQueue[Settled]) -> None:
        while (task := jobs.get()) is not None:
            try:
                after = self._attempt(task)
            except BaseException:  # an application may raise SystemExit; this thread must go on
                log.exception("Task %s in %s could not be delivered.", task.name, task.queue)
                after = self._after(task, None)
            results.put(Settled(task=task, after=after))

    def _attempt(self, task: QueuedTask) -> QueuedTask | None:
        """Deliver once; the task as it goes on, or None."""
        try:
            status = self.target.deliver(task, self._secret)
        except ServerAbsentError as error:
            if not self._absent:
                log.warning("%s: tasks wait until somebody does.", error)
            self._absent = True
            return retry.absent(task, clock.now())
        self._absent = False
        if status is not None and 200 <= status < 300:
            return None
        after = self._after(task, status)
        _tell(task, status, after)
        return after

    def _after(self, task: QueuedTask, status: int | None) -> QueuedTask | None:
        return retry.failed(task, status, clock.now(), self.queue.retry_of(task.queue))


def _tell(task: QueuedTask, status: int | None, after: QueuedTask | None) -> None:
    answer = "had no answer" if status is None else f"was answered {status}"
    if after is None:
        log.error(
            "Task %s in %s %s at attempt %d, its last: it is dropped.", task.name, task.queue, answer, task.attempts
        )
        return
    wait = after.due - clock.now()
    log.warning("Task %s in %s %s at attempt %d; again in %.1f s.", task.name, task.queue, answer, task.attempts, wait)


def _is_gone(row: sqlite3.Row) -> bool:
    """Whether a dispatcher without a farewell is gone: its process on this machine, or its last sign of life."""
    if row["alive_until"] < clock.now():
        return True
    if row["host"] != socket.gethostname():
        return False
    if row["pid"] == os.getpid():
        return row["id"] not in _living
    return not _process_exists(row["pid"])


def _process_exists(pid: int) -> bool:
    if os.name == "nt":  # where signal 0 is no question, but ends the process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
