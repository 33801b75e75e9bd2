"""The bundled Datastore's calls and transactions, as the store needs them. The SDK is imported on first use."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

from ... import platform

log = logging.getLogger("defer")

AT_ONCE = 3
"""Entities of a megabyte that are read or written in one call."""
_hooks: ContextVar[list[Callable[[], object]] | None] = ContextVar("defer_appengine_hooks", default=None)


def in_transaction() -> bool:
    """Return True if the caller is in a transaction, of `ndb` or `db`."""
    from google.appengine.api import datastore

    return bool(datastore.IsInTransaction())


@contextmanager
def transaction_block() -> Iterator[None]:
    """Open a transaction over several entity groups; an inner one joins the outer, which has no savepoints. It is not
    repeated."""
    if in_transaction():
        yield
        return
    hooks: list[Callable[[], object]] = []
    token = _hooks.set(hooks)
    try:
        with _begun():
            yield
    finally:
        _hooks.reset(token)
    for hook in hooks:
        hook()


@contextmanager
def _begun() -> Iterator[None]:
    from google.appengine.api import datastore, datastore_errors
    from google.appengine.datastore import datastore_rpc

    connection = datastore._GetConnection().new_transaction(datastore_rpc.TransactionOptions(xg=True))
    datastore._PushConnection(connection)
    try:
        try:
            yield
        except BaseException:
            connection.rollback()
            raise
        if not connection.commit():
            raise datastore_errors.TransactionFailedError("The transaction conflicts with another: it did not commit.")
    finally:
        datastore._PopConnection()


@contextmanager
def beside_transaction() -> Iterator[None]:
    """Suspend the caller's transaction."""
    from google.appengine.api import datastore
    from google.appengine.datastore import datastore_rpc

    datastore._PushConnection(datastore_rpc.Connection(adapter=datastore.DatastoreAdapter()))
    try:
        yield
    finally:
        datastore._PopConnection()


def after_commit(func: Callable[[], object]) -> None:
    """Call `func` after the commit; outside a transaction, at once. In a transaction of `db`, which has no hooks, it is
    not called: the sweep does its work."""
    from google.appengine.ext import ndb

    hooks = _hooks.get()
    if not in_transaction():
        func()
    elif hooks is not None:
        hooks.append(func)
    elif ndb.in_transaction():
        ndb.get_context().call_on_commit(func)
    else:
        log.info("A transaction of `db` has no hooks: the sweep sends its tasks.")


def transact(func: Callable[[], Any]) -> Any:
    """Return `func()` in the surrounding transaction, else in one of its own, which is repeated on contention."""
    from google.appengine.api import datastore

    platform.require_bundled_service(platform.DATASTORE)
    return func() if in_transaction() else datastore.RunInTransaction(func)


# --- calls ------------------------------------------------------------------------------------------------------------


@contextmanager
def _connected() -> Iterator[None]:
    """Use the caller's transaction with plain entities: ndb's own connection takes only its models."""
    from google.appengine.api import datastore
    from google.appengine.datastore import datastore_rpc

    theirs = datastore._GetConnection()
    if isinstance(theirs.adapter, datastore.DatastoreAdapter):
        yield
        return
    make = partial(datastore_rpc.Connection, adapter=datastore.DatastoreAdapter(), config=theirs.config)
    if in_transaction():
        make = partial(
            datastore_rpc.TransactionalConnection,
            adapter=datastore.DatastoreAdapter(),
            config=theirs.config,
            transaction=theirs.transaction,
        )
    datastore._PushConnection(make())
    try:
        yield
    finally:
        datastore._PopConnection()


def put(written: Sequence[Any], at_once: int = AT_ONCE) -> None:
    """Write entities, `at_once` in a call."""
    from google.appengine.api import datastore

    with _connected():
        for start in range(0, len(written), at_once):
            datastore.Put(list(written[start : start + at_once]))


def put_in_theirs(written: Sequence[Any]) -> None:
    """Write entities in the caller's transaction. Raises BadRequestError if that takes only one group."""
    from google.appengine.api import datastore_errors

    try:
        put(written)
    except datastore_errors.BadRequestError as error:
        remedy = "The record of a task is an entity group of its own: begin the transaction with xg=True."
        raise datastore_errors.BadRequestError(f"{error} {remedy}") from error


def delete(keys: Sequence[Any]) -> None:
    """Delete the entities that these keys have, in one call."""
    from google.appengine.api import datastore

    with _connected():
        if keys:
            datastore.Delete(list(keys))


def get(keys: Sequence[Any]) -> list[Any]:
    """Return the entities of these keys, None for each that is missing."""
    from google.appengine.api import datastore

    with _connected():
        found: list[Any] = []
        for start in range(0, len(keys), AT_ONCE):
            found += datastore.Get(list(keys[start : start + AT_ONCE]))
        return found
