"""The store of a task's record, and its relation to the caller's transaction."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ..config import Config, current
from ..errors import ConfigError, NotInTransactionError, PayloadTooLargeError
from ..nouns import fast_init
from ..stores.base import TaskStore
from ..task import TaskOptions


class Membership(Enum):
    """How a task relates to the transaction that its caller is in."""

    JOINED = "joined"
    """The task belongs to it: both happen, or neither."""
    OUTSIDE = "outside"
    """The caller is in one, and the task does not belong to it."""
    NONE = "none"
    """The caller is in no transaction."""


@fast_init
@dataclass(frozen=True, kw_only=True)
class Placement:
    """The store and transaction of a task's record."""

    store: TaskStore | None
    """The store; None if none is configured."""
    membership: Membership
    """How the task relates to a transaction of it."""

    @property
    def is_joined(self) -> bool:
        """True if the task belongs to the caller's transaction."""
        return self.membership is Membership.JOINED

    @property
    def takes_records(self) -> bool:
        """True if a record can be written without joining a transaction that the task does not belong to."""
        store = self.store
        return store is not None and (
            self.membership is not Membership.OUTSIDE or store.supports_records_beside_transaction
        )

    def check_takes_payload(self) -> None:
        """Raise PayloadTooLargeError if a payload cannot be stored outside the caller's transaction."""
        if self.store is not None and not self.takes_records:
            raise PayloadTooLargeError(
                "A task with `_transactional=False` is too large to send inline, and would be stored in the transaction"
                " you asked it to ignore: defer it outside the transaction, or leave `_transactional` out."
            )

    def suspended(self) -> AbstractContextManager[Any]:
        """Suspend the caller's transaction while the record is written, if the task does not belong to it (and the
        store can write outside it)."""
        if self.store is not None and self.membership is Membership.OUTSIDE and self.takes_records:
            return self.store.outside_transaction()
        return nullcontext()

    def leaves_record(self, wanted: TaskOptions, config: Config) -> bool:
        """Return True if a task that fits inline has a record all the same."""
        always = config.store_policy == "always" and not wanted.small
        return self.is_joined or (always and self.takes_records)


def placement_of(wanted: TaskOptions, config: Config) -> Placement:
    """Return the placement of a task with these options. Raises NotInTransactionError, or ConfigError for an alias that
    no store has."""
    store, in_transaction = store_for(wanted, config)
    if not in_transaction:
        if wanted.transactional and not any(each.supports_transactional_outside for each in config.stores):
            raise NotInTransactionError
        return Placement(store=store, membership=Membership.NONE)
    joined = wanted.transactional is not False
    return Placement(store=store, membership=Membership.JOINED if joined else Membership.OUTSIDE)


def check_placement(wanted: TaskOptions) -> None:
    """Raise what `defer` would for the place of a task with these options: NotInTransactionError or ConfigError."""
    placement_of(wanted, current())


def store_for(wanted: TaskOptions, config: Config) -> tuple[TaskStore | None, bool]:
    """Return the store whose open transaction a task joins, else the configured one (None without a store); and whether
    the caller is in a transaction of it. Raises ConfigError for an alias that no store has."""
    alias, stores = wanted.using, config.stores
    if alias is not None:
        stores = tuple(each.using(alias) for each in stores if each.has_alias(alias))
        if not stores:
            raise ConfigError(
                f"_using is {alias!r}, and no configured store has that alias: give that of a database with our table, "
                "or leave it out."
            )
    for store in stores:
        if store.in_transaction():
            return store, True
    return (stores[0] if stores else None), False
