"""Take due tasks from the queue's file and deliver them, again if a crash interrupted them."""

from __future__ import annotations

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

from defer_core.errors import ConfigError
from defer_core.spi import clock, logger, refuse_on_google_cloud

from . import living, retry
from .answer import NoAnswerError
from .living import BEAT, BEAT_LASTS
from .naming import attempt_of
from .queue import DurableQueue
from .queued import QueuedTask, Settled
from .target import ServerAbsentError, Target, WsgiApp, as_target

log = logger("defer.local")

POLL = 0.02
"""Seconds between two queries for due tasks."""
FINISHING = 5.0
"""Seconds for which a stopping dispatcher tries to write its results."""


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
        self._watch = living.Watch()
        self._latest: float | None = None
        self._losses = 0
        self._trouble = ""

    def start(self) -> None:
        """Begin to deliver, in threads. Raises ConfigError if the file cannot be opened."""
        if self._thread is not None:
            return
        self._stopping.clear()
        living.here.add(self.id)
        try:
            self._beat()
        except sqlite3.Error as error:
            raise ConfigError(f"The file {self.queue.file.path} cannot be used: {error}.") from error
        # new queues: a request that outlived the last stop still has the old ones
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
        """Take no more tasks, wait up to `timeout` seconds for running requests, and give the rest back to the queue,
        which are delivered again at the next start."""
        if self._thread is None:
            return
        self._until = time.monotonic() + timeout
        self._stopping.set()
        self._thread.join()
        self._thread = None
        for _ in self._workers:
            self._jobs.put(None)
        for worker in self._workers:  # a worker whose request outlives this ends by itself
            worker.join(max(self._until - time.monotonic(), 0.0))
        self._running.clear()
        self.queue.close()

    def run_until_idle(self, timeout: float = 30.0) -> None:
        """Deliver (in its own threads unless started) until no task is due, running or waiting for a retry.

        Tasks with a future ETA stay. Raises TimeoutError after `timeout` seconds.
        """
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
                self._collect(self._pause)
                if time.monotonic() > next_beat or self._is_another_file():
                    self._beat()
                    next_beat = time.monotonic() + BEAT
                self._turn()
                self._trouble = ""
            except (sqlite3.Error, ConfigError) as error:
                self._tell_trouble(str(error))
                self._stopping.wait(1.0)
            except Exception:
                log.exception("The queue %s cannot be used; trying again.", self.queue.file.path)
                self._stopping.wait(1.0)
        try:
            self._finish()
        except (sqlite3.Error, ConfigError) as error:
            log.error(
                "The queue %s has unwritten results (%s): the next start takes its tasks over.",
                self.queue.file.path,
                error,
            )
        finally:
            living.here.discard(self.id)
            self.queue.close()

    def _tell_trouble(self, error: str) -> None:
        if error != self._trouble:
            log.error("The queue %s cannot be used; trying again: %s", self.queue.file.path, error)
        self._trouble = error

    def _turn(self) -> None:
        """Settle and lease in one transaction."""
        began, now, free = time.thread_time(), clock.now(), self.concurrency - len(self._running)
        leased: list[QueuedTask] = []
        if self._unsettled or (free and self.queue.has_due(now)):
            leased = self.queue.turn(self.id, self._unsettled, limit=free, now=now)
            self._unsettled.clear()
        for task in leased:
            self._running[task.queue, task.name] = task
            self._jobs.put(task)
        # a futile query of very many queues must not use up the processor
        self._pause = POLL if leased else min(max(POLL, 20 * (time.thread_time() - began)), 1.0)

    def _collect(self, wait: float) -> None:
        """Wait for a first result, and take all that are there."""
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
        until = time.monotonic() + FINISHING
        while True:
            try:
                self.queue.turn(self.id, self._unsettled, limit=0, now=clock.now())
                self._unsettled.clear()
                left_over = self._take_back([self.id])
                break
            except (sqlite3.Error, ConfigError):
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)
        if left_over:
            log.warning("Stopped with %d requests under way: their tasks will be delivered again.", left_over)

    # --- heartbeats ---------------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        """Write a heartbeat, and take over the tasks of dispatchers that are gone."""
        now, losses = clock.now(), self.queue.file.losses
        self._secret = self.queue.secret()
        self.queue.beat(self.id, socket.gethostname(), os.getpid(), now + BEAT_LASTS)
        if self._latest is None or now < self._latest:
            self.queue.clock_set_back(now)
        self._latest = max(now, self._latest or now)
        others = [row for row in self.queue.dispatchers() if row["id"] != self.id]
        gone = self._watch.gone(others) + self.queue.unknown_owners()
        if gone and (count := self._take_back(gone)):
            log.warning("Taking over %d tasks of a dispatcher that is gone.", count)
        self._losses = losses

    def _is_another_file(self) -> bool:
        """Tell whether the file was replaced since the last beat: it has neither this dispatcher nor its secret."""
        with self.queue.file.reading():
            return self.queue.file.losses != self._losses

    def _take_back(self, owners: list[str]) -> int:
        return self.queue.take_back(owners, lambda task: retry.interrupted(task, clock.now()))

    # --- the threads that deliver -------------------------------------------------------------------------------------

    def _work(self, jobs: queue.SimpleQueue[QueuedTask | None], results: queue.SimpleQueue[Settled]) -> None:
        while (task := jobs.get()) is not None:
            try:
                after = self._attempt(task)
            except BaseException as error:  # an application may raise SystemExit; this thread must go on
                log.error("%s could not be delivered: %s", attempt_of(task), repr(error), exc_info=task.attempts == 1)
                after = self._after(task, None)
            results.put(Settled(task=task, after=after))

    def _attempt(self, task: QueuedTask) -> QueuedTask | None:
        """Deliver once. Return the task for its next attempt, or None."""
        began, status, why = time.monotonic(), None, ""
        try:
            status = self.target.deliver(self._authorized(task), self._secret)
        except ServerAbsentError as error:
            if not self._absent:
                log.warning("%s: tasks wait for a server.", error)
            self._absent = True
            return retry.absent(task, clock.now())
        except NoAnswerError as error:
            why = f": {error}"
        self._absent = False
        done = status is not None and 200 <= status < 300
        after = None if done else self._after(task, status)
        answer = f"{status or 'no answer'} in {time.monotonic() - began:.3f} s{why}"
        if done:
            log.info("%s: %s", attempt_of(task), answer)
        elif after is not None:
            log.warning("%s: %s; again in %.1f s", attempt_of(task), answer, after.due - clock.now())
        else:
            log.error("%s: %s; given up", attempt_of(task), answer)
        return after

    def _authorized(self, task: QueuedTask) -> QueuedTask:
        """Return the task with the OIDC token that it asks for; only tasks of the Cloud Tasks API can."""
        if task.proto is None or not task.is_http:
            return task
        from .cloud.tokens import authorized

        return authorized(task, self.queue)

    def _after(self, task: QueuedTask, status: int | None) -> QueuedTask | None:
        return retry.failed(task, status, clock.now(), self.queue.retry_of(task.queue))
