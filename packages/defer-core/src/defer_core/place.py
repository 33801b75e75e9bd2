"""Where the record of a task belongs, if it leaves one: in which store, and whether in its open transaction."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from .config import Config
from .errors import ConfigError, NotInTransactionError, PayloadTooLargeError
from .frozen import made
from .stores.base import TaskStore
from .task import TaskOptions


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a task's record belongs."""

    store: TaskStore | None
    """The store; None where none is configured."""
    inside: bool
    """Whether the caller is in a transaction of it."""
    transactional: bool
    """Whether the task belongs to that transaction."""

    @property
    def is_beside(self) -> bool:
        """Whether the caller is in a transaction that the task does not belong to."""
        return self.inside and not self.transactional

    @property
    def takes_records(self) -> bool:
        """Whether a record can be written, be it beside that transaction."""
        store = self.store
        return store is not None and (not self.is_beside or store.supports_records_beside_transaction)

    def check_claim(self) -> None:
        """Raises PayloadTooLargeError where a payload cannot be stored beside the transaction."""
        if self.store is not None and not self.takes_records:
            raise PayloadTooLargeError(
                "A task over the inline limit with `_transactional=False` would be stored in the very transaction that "
                "it is to be independent of: defer it outside the transaction, or leave `_transactional` out."
            )

    def entered(self) -> AbstractContextManager[Any]:
        """For the length of a `with` block, outside a transaction that the task does not belong to (but where records
        cannot be written there)."""
        beside = self.store if self.is_beside and self.takes_records else None
        return beside.outside_transaction() if beside else nullcontext()


def place_of(wanted: TaskOptions, config: Config) -> Place:
    """Where a task with these options goes. Raises NotInTransactionError, or ConfigError for an alias of no store."""
    store, inside = store_for(wanted, config)
    if wanted.transactional and not inside and not any(each.supports_transactional_outside for each in config.stores):
        raise NotInTransactionError
    return made(Place, store=store, inside=inside, transactional=inside and wanted.transactional is not False)


def store_for(wanted: TaskOptions, config: Config) -> tuple[TaskStore | None, bool]:
    """The store whose open transaction a task joins, else the configured one (None where there is none); and whether it
    is in a transaction. Raises ConfigError for an alias that no store has."""
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


def leaves_record(wanted: TaskOptions, place: Place, config: Config) -> bool:
    """Whether a task that fits inline touches the store all the same."""
    always = config.store_policy == "always" and not wanted.small
    return place.transactional or (always and place.takes_records)
