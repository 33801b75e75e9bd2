"""ndb's contexts and transactions, as the store needs them. Google's library is imported when it is first used."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

log = logging.getLogger("defer")

RETRIES = 5
"""How often a transaction of our own is repeated when another one got in its way."""


class RolledBackError(Exception):
    """Makes ndb roll a transaction back."""


class Clients:
    """One ndb client a process: its channel does not survive a fork."""

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._made: dict[int, Any] = {}

    @contextmanager
    def context(self) -> Iterator[None]:
        """The caller's ndb context, else one of our own."""
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
    """Whether the Datastore is one of Google's emulators."""
    return "DATASTORE_EMULATOR_HOST" in os.environ


def in_transaction() -> bool:
    """Whether the caller is in an ndb transaction; where ndb was never imported, nobody is."""
    ndb = sys.modules.get("google.cloud.ndb")
    context = ndb.get_context(raise_context_error=False) if ndb else None
    return context is not None and context.transaction is not None


@contextmanager
def beside_transaction() -> Iterator[None]:
    """`ndb.non_transactional` for a `with` block; its calls share nothing with the transaction that it leaves."""
    if not in_transaction():
        yield
        return
    from google.cloud import ndb

    with ndb.get_context().new(transaction=None, batches=None, commit_batches=None, cache=None).use():
        yield


def transaction_async(func: Callable[[], Any]) -> Any:
    """The future of `func()` in the surrounding transaction, else in its own one, which is repeated on contention."""
    from google.cloud import ndb

    return ndb.transaction_async(func, join=True, retries=RETRIES)


@contextmanager
def transaction_block() -> Iterator[None]:
    """A transaction for a `with` block, or the surrounding one. It is not repeated: contention raises Aborted."""
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
    """Call `func` after the surrounding transaction has committed; at once outside one."""
    if not in_transaction():
        func()
        return
    from google.cloud import ndb

    ndb.get_context().call_on_commit(partial(_call_safely, func))


def _call_safely(func: Callable[[], object]) -> None:
    """ndb calls this within the transaction that is over, commits that once more if a transient error leaves here, and
    on any other skips what else was to follow the commit."""
    try:
        with beside_transaction():
            func()
    except Exception:
        log.exception("What was to follow the commit of a Datastore transaction failed.")
