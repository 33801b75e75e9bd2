"""ndb's contexts and transactions, as the store needs them. Google's library is imported on first use."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from ...extras import require

log = logging.getLogger("defer")

RETRIES = 5
"""How often a transaction of our own is repeated after a conflict with another one."""


class RolledBackError(Exception):
    """Makes ndb roll a transaction back."""


class Clients:
    """One ndb client for each process: its channel does not survive a fork."""

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._made: dict[int, Any] = {}

    @contextmanager
    def context(self) -> Iterator[None]:
        """Enter the caller's ndb context, else one of our own. Raises MissingExtraError."""
        require("datastore")
        from google.cloud import ndb

        if ndb.get_context(raise_context_error=False) is not None:
            yield
            return
        client = self._made.get(os.getpid())
        if client is None:
            client = self._made[os.getpid()] = ndb.Client(**self._options)
        with client.context():
            yield


def on_emulator() -> bool:
    """Return True if the Datastore is one of Google's emulators."""
    return "DATASTORE_EMULATOR_HOST" in os.environ


def in_transaction() -> bool:
    """Return True if the caller is in an ndb transaction; False if ndb was never imported."""
    ndb = sys.modules.get("google.cloud.ndb")
    context = ndb.get_context(raise_context_error=False) if ndb else None
    return context is not None and context.transaction is not None


@contextmanager
def beside_transaction() -> Iterator[None]:
    """Suspend the caller's transaction in a `with` block, as `ndb.non_transactional` does; its calls share nothing with
    that transaction."""
    if not in_transaction():
        yield
        return
    from google.cloud import ndb

    with ndb.get_context().new(transaction=None, batches=None, commit_batches=None, cache=None).use():
        yield


def transaction_async(func: Callable[[], Any]) -> Any:
    """Return the future of `func()` in the surrounding transaction, else in one of its own, which is repeated on
    contention."""
    from google.cloud import ndb

    return ndb.transaction_async(func, join=True, retries=RETRIES)


@contextmanager
def transaction_block() -> Iterator[None]:
    """Open a transaction for a `with` block, or join the surrounding one. It is not repeated: contention raises
    Aborted."""
    if in_transaction():
        yield
        return
    from google.cloud import ndb

    begun, body = ndb.Future("begun"), ndb.Future("body")

    def begin() -> Any:
        begun.set_result(ndb.get_context())
        return body

    future = ndb.transaction_async(begin, retries=0)
    if ndb.Future.wait_any([begun, future]) is future:
        future.check_success()
    try:
        with begun.result().use():
            yield
    except BaseException:
        body.set_exception(RolledBackError())
        future.wait()
        raise
    body.set_result(None)
    future.check_success()


def after_commit(func: Callable[[], object]) -> None:
    """Call `func` after the surrounding transaction has committed; outside one, call it at once."""
    if not in_transaction():
        func()
        return
    from google.cloud import ndb

    ndb.get_context().call_on_commit(partial(_call_safely, func))


def _call_safely(func: Callable[[], object]) -> None:
    """Call a hook outside the transaction, and log its exception. ndb calls it within the transaction that is over; it
    commits again if a transient error leaves here, and on any other it skips the remaining hooks."""
    try:
        with beside_transaction():
            func()
    except Exception:
        log.exception("A hook failed after the commit of a Datastore transaction.")
