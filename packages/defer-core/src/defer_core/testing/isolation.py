"""Test runs: tasks for a real queue stay in memory, and every test has a queue of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from ..config import Config, add_layer, remove_layer
from ..config.model import STORE_OF, STORES, TRANSPORTS, build, class_of
from ..errors import ConfigError
from ..stores.base import TaskStore
from ..stores.memory import MemoryStore
from ..transports.base import Transport
from ..transports.memory import MemoryTransport

REAL = {"cloud", "appengine", "local"}
"""Transports that tests must not use: their tasks would reach a network, or a developer's own queue."""
JOINED = {"ndb", "appengine"}
"""Stores of which a test joins open transactions, and uses nothing else."""


class Isolation:
    """A queue in memory that replaces the configured one: the real transports, and `memory` by its name. Others
    (`immediate`, an instance, a custom class that is not a real transport) were chosen with tests in mind, and stay."""

    def __init__(self) -> None:
        self.transport = MemoryTransport()
        self._store = MemoryStore()
        self._laid: list[tuple[Config, Config]] = []
        self._lock = threading.Lock()

    def layer(self, config: Config) -> Config:
        """Return the configuration of a test."""
        with self._lock:
            for known, laid in self._laid:
                if known is config:
                    return laid
            self._laid.append((config, self._lay(config)))
            return self._laid[-1][1]

    def _lay(self, config: Config) -> Config:
        if _is_real(config.transport):
            # a test without a database can defer; the authenticators are those of the real transport
            return replace(
                config,
                **self._stores(config),
                transport=self.transport,
                transport_options={},
                store_policy="when-large",
                sweep_interval=0.0,
                authenticators=_authenticators(config),
            )
        if config.transport in ("memory", TRANSPORTS["memory"]):
            own = MemoryTransport(**config.transport_options) if config.transport_options else self.transport
            return replace(config, **self._stores(config), transport=own, transport_options={})
        return config

    def _stores(self, config: Config) -> dict[str, Any]:
        """Return the store settings of a test: a store in memory replaces one in a network, a file or memory;
        transactions of Datastore are still joined."""
        spec = config.store
        if spec is None:
            spec = STORE_OF.get(config.transport) if isinstance(config.transport, str) else "memory"
        name = {path: name for name, path in STORES.items()}.get(str(spec), spec)
        if name not in ("memory", "sqlite", *JOINED):
            return {}
        joins: list[str | TaskStore] = list(config.joins)
        if name in JOINED:
            with suppress(ConfigError):  # without the library there is no transaction to join
                joined: TaskStore = build(spec, STORES, config.store_options, TaskStore)
                joined.everywhere = tuple  # type: ignore[method-assign] # not swept: its service may not be running
                joins.append(joined)
        return {"store": self._store, "store_options": {}, "joins": joins}


def _is_real(transport: Any) -> bool:
    if transport is None or transport in REAL:
        return True
    if isinstance(transport, str) and transport not in TRANSPORTS:
        with suppress(ConfigError):  # which its first use raises
            return class_of(transport, TRANSPORTS, Transport).name in REAL  # type: ignore[attr-defined]
    return False


def _authenticators(config: Config) -> Any:
    """Return the configured authenticators, else the real transport's own."""
    if config.authenticators is None and isinstance(config.transport, str):
        with suppress(ConfigError):
            own = class_of(config.transport, TRANSPORTS, Transport).default_authenticator  # type: ignore[attr-defined]
            return [own] if own else None
    return config.authenticators


@contextmanager
def isolated() -> Iterator[None]:
    """Use a new queue in a `with` block; nothing reaches a real one."""
    with _laid(Isolation().layer):
        yield


@contextmanager
def not_isolated() -> Iterator[None]:
    """Use the configuration as it is in a `with` block, in a test, too."""
    with _laid(lambda config: config):
        yield


@contextmanager
def _laid(layer: Callable[[Config], Config]) -> Iterator[None]:
    add_layer(layer, first=True)
    try:
        yield
    finally:
        remove_layer(layer)
