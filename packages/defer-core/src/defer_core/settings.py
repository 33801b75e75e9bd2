"""All settings, and the adapters that they name."""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timezone, tzinfo
from functools import cached_property, lru_cache, partial
from typing import Any

from .errors import ConfigError
from .http_syntax import is_url
from .policy import Policy
from .signing import Signer
from .stores.base import TaskStore
from .transports.base import Transport

TRANSPORTS = {
    "cloud": "defer_core.transports.cloud_tasks:CloudTasksTransport",
    "appengine": "defer_core.transports.appengine:AppEngineTransport",
    "local": "defer_local.transport:LocalTransport",
    "memory": "defer_core.transports.memory:MemoryTransport",
    "immediate": "defer_core.transports.immediate:ImmediateTransport",
}
STORES = {
    "ndb": "defer_core.stores.ndb:NdbTaskStore",
    "appengine": "defer_core.stores.appengine:AppEngineTaskStore",
    "sqlite": "defer_core.stores.sqlite:SQLiteTaskStore",
    "memory": "defer_core.stores.memory:MemoryStore",
    "django": "defer_django.store:DjangoTaskStore",
}
STORE_OF = {"cloud": "ndb", "appengine": "appengine", "local": "sqlite", "memory": "memory", "immediate": "memory"}
"""The store that goes with a transport where none is configured."""
_EXTRAS = {"defer_local": "defer-local", "defer_django": "defer-django"}

UNCONFIGURED = """defer is not configured: say where tasks go, one of
  cloud      Google Cloud Tasks       configure(transport="cloud") or DEFER_TRANSPORT=cloud
  appengine  App Engine's Task Queue  configure(transport="appengine") or DEFER_TRANSPORT=appengine
  local      the embedded queue       configure(transport="local") or DEFER_TRANSPORT=local
In Django settings: DEFER = {"TRANSPORT": "cloud"}."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings. In `DEFER` and in the environment their names are in capitals (`DEFER_INLINE_LIMIT`)."""

    transport: str | Transport | None = None
    """`cloud`, `appengine`, `local`, `memory`, `immediate`, a `"module:Class"`, or an instance."""
    transport_options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the transport's class."""
    store: str | TaskStore | None = None
    """`ndb`, `appengine`, `sqlite`, `memory`, `django`, a `"module:Class"`, or an instance;
    None goes by the transport."""
    store_options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the store's class."""
    joins: Sequence[str | TaskStore] = ()
    """Further stores whose open transactions a defer joins."""
    keys: Sequence[str | bytes] = field(default=(), repr=False)
    """Secrets that sign tasks: the first signs, all verify."""
    url: str | Callable[[], str] = "/_ah/queue/deferred"
    """Where tasks are posted: a path, an absolute URL, or a function that returns one."""
    inline_limit: int = 100 * 1024
    """Bytes of body, frame and all, above which the payload is stored and only claimed."""
    store_policy: str = "always"
    """`always`: every task that is not small leaves a record; `when-large`: only those that need one."""
    allow_pickle: bool = True
    """Whether values of other types fall back to pickle."""
    accept_legacy_pickles: bool = False
    """Whether bodies pickled by Google's deferred or by Djangae are run."""
    callables: Sequence[str] | None = None
    """Patterns (`shop.*`) of the callables that may be deferred and run; None is all but the forbidden."""
    forbidden_callables: Sequence[str] | None = None
    """Patterns of the callables that are refused; None is the default list."""
    doors: Sequence[Any] | None = None
    """Who may post tasks: names, `"module:Class"` or instances of doors; None goes by the transport."""
    door_options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments by door name: `{"oidc": {"audience": ...}}`."""
    max_body: int = 1_100_000
    """Bytes of a request above which the handler answers 413, unread: queues take tasks of 1 MiB at the most."""
    expires_after: float | None = None
    """Seconds after which an unrun task is no longer run; None is never."""
    grace: float = 3600.0
    """Seconds for which an unreadable task is retried, for rolling deploys."""
    name_window: float = 3600.0
    """Seconds from the first doubtful send for which a task's name is trusted to stop a second one."""
    sweep_grace: float = 60.0
    """Seconds that a record is left to its own sender before the sweep looks at it."""
    sweep_interval: float = 60.0
    """Seconds between two sweeps that one handling process does by itself; 0 turns them off."""
    max_send_attempts: int = 10
    """How often a refused task is sent again before it is dead."""
    dead_retention: float = 30 * 86400.0
    """Seconds for which dead letters are kept; 0 is for ever."""
    max_unverified: int = 100
    """How many dead letters are kept of bodies that never verified."""
    queues: Sequence[str | Mapping[str, Any]] = ()
    """The queues of Cloud Tasks that `queues create` makes: names, or mappings with `name`, `rate_per_second`, ..."""
    timezone: tzinfo | Callable[[], tzinfo] = timezone.utc
    """The zone of a naive `_eta`."""

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self):
            _check_type(each, getattr(self, each.name))
        if self.keys:
            _ = self.signer  # which refuses an empty secret
        for kind, spec, names in (("transport", self.transport, TRANSPORTS), ("store", self.store, STORES)):
            if isinstance(spec, str) and spec not in names and ":" not in spec:
                known = ", ".join(names)
                raise ConfigError(
                    f"There is no {kind} {spec!r}: it is one of {known}, a 'module:Class' or an instance."
                )
        if not callable(self.url) and not is_url(str(self.url)):
            raise ConfigError(f"url is {self.url!r}: give a path that begins with '/', or an absolute URL.")
        if self.store_policy not in ("always", "when-large"):
            raise ConfigError(f"store_policy is {self.store_policy!r}: it is 'always' or 'when-large'.")

    @cached_property
    def signer(self) -> Signer | None:
        """The signer, where keys are configured."""
        return Signer(self.keys) if self.keys else None

    @cached_property
    def policy(self) -> Policy:
        """Which callables may be deferred and run."""
        return Policy(self.callables, self.forbidden_callables)

    @cached_property
    def steady_options(self) -> Callable[..., Any]:
        """From the options that mean the same at each call to TaskOptions, each set of which is parsed once."""
        from .options import parse_steady

        return lru_cache(maxsize=256, typed=True)(partial(parse_steady, self))

    @cached_property
    def the_transport(self) -> Transport:
        """The transport, made on first use. Raises ConfigError where none is configured."""
        if self.transport is None:
            raise ConfigError(UNCONFIGURED)
        if self.transport == "local":
            refuse_on_google_cloud("The local queue")
        made: Transport = build(self.transport, TRANSPORTS, self.transport_options, Transport)
        return made

    @cached_property
    def the_store(self) -> TaskStore | None:
        """The store of plain defers, made on first use; None where there is no transport either."""
        spec = self.store
        if spec is None and isinstance(self.transport, str):
            spec = STORE_OF.get(self.transport)
        if spec is None:
            return None
        made: TaskStore = build(spec, STORES, self.store_options, TaskStore)
        return made

    @cached_property
    def stores(self) -> tuple[TaskStore, ...]:
        """Every store whose transactions a defer joins and whose Claims this process can read;
        the default one first."""
        first = () if self.the_store is None else (self.the_store,)
        return first + tuple(build(spec, STORES, {}, TaskStore) for spec in self.joins)

    def every_store(self) -> tuple[TaskStore, ...]:
        """The configured stores on all their aliases: where the sweep and people look for records."""
        return tuple(each for store in self.stores for each in store.everywhere())

    def post_url(self) -> str:
        """Where tasks are posted that do not say so themselves."""
        return self.url if isinstance(self.url, str) else self.url()

    def store_named(self, name: str, alias: str) -> TaskStore | None:
        """The store that a Claim names, or None."""
        for store in self.stores:
            if store.name == name and (not alias or store.has_alias(alias)):
                return store.using(alias or None)
        return None


_TYPES: Mapping[str, tuple[Any, str]] = {
    "bool": (bool, "True or False"),
    "int": (int, "a whole number"),
    "float": (int | float, "a number"),
    "Mapping": (Mapping, "a dict"),
    "Sequence": (Collection, "a list"),
    "tzinfo": (tzinfo | Callable, "a tzinfo, or a function that returns one"),
}
"""What a setting may be, by the first word of its annotation."""
_SINGLE = {
    "keys": "a list of secrets, of which the first signs and all verify",
    "callables": "a list of patterns, such as ['shop.*']",
    "forbidden_callables": "a list of patterns, such as ['shop.*']",
    "doors": "a list of doors, such as ['appengine']",
}


def _check_type(setting: dataclasses.Field[Any], value: Any) -> None:
    """Raises ConfigError; the value is not shown, for it may be a secret."""
    word, _, more = str(setting.type).replace("[", " ").partition(" ")
    if word not in _TYPES or (value is None and more.endswith("None")):
        return
    kind, expected = _TYPES[word]
    wrong = isinstance(value, str | bytes) or (isinstance(value, bool) and word != "bool")
    if wrong or not isinstance(value, kind):
        raise ConfigError(f"{setting.name} is a {type(value).__name__}: give {_SINGLE.get(setting.name, expected)}.")
    if word in ("int", "float") and not value >= 0:
        raise ConfigError(f"{setting.name} is {value}: give {expected} that is not negative.")


def build(spec: Any, names: Mapping[str, str], options: Mapping[str, Any], base: type) -> Any:
    """An adapter from its short name, its `"module:Class"` or an instance. Raises ConfigError."""
    if isinstance(spec, base):
        return spec
    if not isinstance(spec, str):
        raise ConfigError(f"{spec!r} is no {base.__name__}: give a name, a 'module:Class' or an instance.")
    path = names.get(spec, spec)
    module, colon, name = path.partition(":")
    if not colon:
        raise ConfigError(
            f"There is no {base.__name__} {spec!r}: it is one of {', '.join(names)}, or a 'module:Class'."
        )
    try:
        cls = getattr(importlib.import_module(module), name)
    except ImportError as error:
        package = _EXTRAS.get(module.partition(".")[0])
        hint = f" Install {package}." if package and error.name == module.partition(".")[0] else ""
        raise ConfigError(f"{spec!r} cannot be imported: {error}.{hint}") from error
    except AttributeError as error:
        raise ConfigError(f"{spec!r} cannot be found: {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise ConfigError(f"{spec!r} is no {base.__name__}: name a class that is a subclass of it.")
    try:
        return cls(**options)
    except TypeError as error:
        raise ConfigError(f"{spec!r} does not take these options: {error}") from error


def on_google_cloud() -> bool:
    """Whether this process runs on App Engine or Cloud Run."""
    # App Engine's own values are standard and flex; the others are of emulators and of Djangae's sandbox
    return os.environ.get("GAE_ENV", "") not in ("", "localdev", "development") or bool(os.environ.get("K_SERVICE"))


def refuse_on_google_cloud(what: str) -> None:
    """Raises ConfigError on App Engine and Cloud Run."""
    if on_google_cloud():
        raise ConfigError(
            f"{what} keeps its tasks on one machine's disk, so it is refused on Google Cloud (GAE_ENV, K_SERVICE)."
        )
