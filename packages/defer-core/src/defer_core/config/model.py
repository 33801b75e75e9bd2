"""All settings, and the adapters that they name."""

from __future__ import annotations

import dataclasses
import importlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timezone, tzinfo
from functools import cached_property
from typing import Any, TypeVar

from ..errors import ConfigError, MissingExtraError
from ..http_syntax import is_url
from ..platform import refuse_on_google_cloud
from ..stores.base import TaskStore
from ..transports.base import Transport
from .kinds import FLAG, LIST, MAPPING, NUMBER, WHOLE, ZONE, check, setting
from .policy import Policy
from .signing import Signer

T = TypeVar("T")
TRANSPORTS = {
    "cloud": "defer_core.transports.cloud.transport:CloudTasksTransport",
    "appengine": "defer_core.transports.appengine:AppEngineTransport",
    "local": "defer_local.transport:LocalTransport",
    "memory": "defer_core.transports.memory:MemoryTransport",
    "immediate": "defer_core.transports.immediate:ImmediateTransport",
}
STORES = {
    "ndb": "defer_core.stores.ndb.store:NdbTaskStore",
    "appengine": "defer_core.stores.appengine.store:AppEngineTaskStore",
    "sqlite": "defer_core.stores.sqlite:SQLiteTaskStore",
    "memory": "defer_core.stores.memory:MemoryStore",
    "django": "defer_django.stores:task_store",
}
STORE_OF = {"cloud": "ndb", "appengine": "appengine", "local": "sqlite", "memory": "memory", "immediate": "memory"}
"""The default store of a transport."""
_EXTRAS = {"defer_local": "defer-local", "defer_django": "defer-django"}

UNCONFIGURED = """defer is not configured: say where tasks go, one of
  cloud      Google Cloud Tasks       configure(transport="cloud") or DEFER_TRANSPORT=cloud
  appengine  App Engine's Task Queue  configure(transport="appengine") or DEFER_TRANSPORT=appengine
  local      the embedded queue       configure(transport="local") or DEFER_TRANSPORT=local
In Django settings: DEFER = {"TRANSPORT": "cloud"}."""


FORGOTTEN = """
Django's settings are read once "defer_django" is in INSTALLED_APPS and django.setup() has run: look for both."""


def unconfigured() -> str:
    """Return what to do if nothing says where tasks go; it names the app that a Django project lacks."""
    settings = getattr(sys.modules.get("django.conf"), "settings", None)
    apps = getattr(sys.modules.get("django.apps"), "apps", None)
    installed = apps is not None and apps.apps_ready and apps.is_installed("defer_django")
    forgotten = settings is not None and settings.configured and not installed
    return UNCONFIGURED + FORGOTTEN if forgotten else UNCONFIGURED


_PATTERNS = "a list of patterns, such as ['shop.*']"


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings. In `DEFER` and in the environment their names are in capitals (`DEFER_INLINE_LIMIT`)."""

    transport: str | Transport | None = None
    """`cloud`, `appengine`, `local`, `memory`, `immediate`, a `"module:Class"`, or an instance."""
    transport_options: Mapping[str, Any] = setting(MAPPING, {}, hidden=True)
    """Keyword arguments of the transport's class."""
    store: str | TaskStore | None = None
    """`ndb`, `appengine`, `sqlite`, `memory`, `django`, a `"module:Class"`, or an instance;
    None goes by the transport."""
    store_options: Mapping[str, Any] = setting(MAPPING, {}, hidden=True)
    """Keyword arguments of the store's class."""
    joins: Sequence[str | TaskStore] = setting(LIST, ())
    """Further stores whose open transactions a defer joins."""
    keys: Sequence[str | bytes] = setting(
        LIST, (), hidden=True, value="a list of secrets, of which the first signs and all verify"
    )
    """Secrets that sign tasks: the first signs, all verify."""
    url: str | Callable[[], str] = "/_ah/queue/deferred"
    """The URL that tasks are posted to: a path, an absolute URL, or a function that returns one."""
    inline_limit: int = setting(WHOLE, 100 * 1024)
    """Bytes of body, frame and all, above which the payload is stored, and the task has a claim check of it."""
    store_policy: str = "always"
    """`always`: every task that is not small leaves a record; `when-large`: only those that need one."""
    allow_pickle: bool = setting(FLAG, True)
    """True if values of other types fall back to pickle."""
    accept_legacy_pickles: bool = setting(FLAG, False)
    """True if bodies pickled by Google's deferred or by Djangae are run."""
    callables: Sequence[str] | None = setting(LIST, None, optional=True, value=_PATTERNS)
    """Patterns (`shop.*`) of the callables that may be deferred and run; None allows all but the forbidden."""
    forbidden_callables: Sequence[str] | None = setting(LIST, None, optional=True, value=_PATTERNS)
    """Patterns of the callables that are refused; None is the default list."""
    authenticators: Sequence[Any] | None = setting(
        LIST, None, optional=True, value="a list of authenticators, such as ['appengine']"
    )
    """Names, `"module:Class"` or instances: what may post tasks; None is the transport's default."""
    authenticator_options: Mapping[str, Any] = setting(MAPPING, {}, hidden=True)
    """Keyword arguments of each authenticator, by name: `{"oidc": {"audience": ...}}`."""
    max_body: int = setting(WHOLE, 1_100_000)
    """Bytes of a request above which the handler answers 413, unread: queues take tasks of at most 1 MiB."""
    expires_after: float | None = setting(NUMBER, 62 * 86400.0, optional=True)
    """Seconds from when it was due after which an unrun task is no longer run: by default, more than any queue keeps
    one. None (0 in the environment) is never."""
    bind_queue: bool = setting(FLAG, False)
    """True if a task is signed for its queue, and refused if it comes through another."""
    grace: float = setting(NUMBER, 3600.0)
    """Seconds for which an unreadable task is retried, for rolling deploys."""
    name_window: float = setting(NUMBER, 3600.0)
    """Seconds from the first doubtful send for which a task's name is trusted to prevent a second one."""
    sweep_grace: float = setting(NUMBER, 60.0)
    """Seconds that a record is left to its own sender before the sweep looks at it."""
    sweep_interval: float = setting(NUMBER, 60.0)
    """Seconds between two sweeps that one handling process does by itself; 0 turns them off."""
    max_send_attempts: int = setting(WHOLE, 10)
    """How often a refused task is sent before it is dead."""
    dead_retention: float = setting(NUMBER, 30 * 86400.0)
    """Seconds for which dead letters are kept; 0 is for ever."""
    max_unverified: int = setting(WHOLE, 100)
    """How many dead letters are kept of bodies that never verified."""
    secrets: str = "pass|secret|token|api_?key|auth|signature|credential|cookie|card|iban"
    """A pattern, ignoring case, of the names of arguments whose values are never shown."""
    max_failing: int = setting(WHOLE, 10_000)
    """How many tasks a store keeps that have failed and are still in their queue; further ones are only logged."""
    health_late: float = setting(NUMBER, 600.0)
    """Seconds for which the oldest record may wait to be sent in a healthy service."""
    health_dead: int = setting(WHOLE, 0)
    """How many dead letters of the last 24 hours a healthy service may have."""
    queues: Sequence[str | Mapping[str, Any]] = setting(LIST, ())
    """The queues of Cloud Tasks that `queues create` makes: names, or mappings with `name`, `rate_per_second`, ..."""
    timezone: tzinfo | Callable[[], tzinfo] = setting(ZONE, timezone.utc)  # noqa: RUF009
    """The zone of a naive `_eta`."""

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self):
            check(each, getattr(self, each.name))
        if self.keys:
            _ = self.signer  # which refuses an empty secret
        for kind, spec, names in (("transport", self.transport, TRANSPORTS), ("store", self.store, STORES)):
            if isinstance(spec, str) and spec not in names and ":" not in spec:
                known = ", ".join(names)
                raise ConfigError(f"There is no {kind} {spec!r}: give one of {known}, a 'module:Class' or an instance.")
        if not callable(self.url) and not is_url(str(self.url)):
            raise ConfigError(f"url is {self.url!r}: give a path that begins with '/', or an absolute URL.")
        try:
            re.compile(self.secrets)
        except re.error as error:
            raise ConfigError(f"secrets is {self.secrets!r}, which is no regular expression: {error}.") from error
        if self.store_policy not in ("always", "when-large"):
            raise ConfigError(f"store_policy is {self.store_policy!r}: give 'always' or 'when-large'.")

    @cached_property
    def signer(self) -> Signer | None:
        """Signer with the configured keys, else None."""
        return Signer(self.keys) if self.keys else None

    @cached_property
    def policy(self) -> Policy:
        """Policy of which callables may be deferred and run."""
        return Policy(self.callables, self.forbidden_callables)

    @cached_property
    def derived(self) -> dict[Any, Any]:
        """Values that were derived from these settings, by the function that derives them; see `derive`."""
        return {}

    def derive(self, how: Callable[[Config], T]) -> T:
        """Return `how(self)`, which is computed once and kept as long as these settings are."""
        try:
            found: T = self.derived[how]
        except KeyError:
            found = self.derived[how] = how(self)
        return found

    @cached_property
    def the_transport(self) -> Transport:
        """Transport, made on first use. Raises ConfigError if none is configured."""
        if self.transport is None:
            raise ConfigError(unconfigured())
        if self.transport == "local":
            refuse_on_google_cloud("The local queue")
        made: Transport = build(self.transport, TRANSPORTS, self.transport_options, Transport)
        return made

    @cached_property
    def the_store(self) -> TaskStore | None:
        """Store of plain defers, made on first use; None if there is no transport either."""
        spec = self.store
        if spec is None and isinstance(self.transport, str):
            spec = STORE_OF.get(self.transport)
        if spec is None:
            return None
        made: TaskStore = build(spec, STORES, self.store_options, TaskStore)
        return made

    @cached_property
    def stores(self) -> tuple[TaskStore, ...]:
        """Every store whose transactions a defer joins and whose claim checks this process can read; the default one
        first."""
        first = () if self.the_store is None else (self.the_store,)
        return first + tuple(build(spec, STORES, {}, TaskStore) for spec in self.joins)

    def every_store(self) -> tuple[TaskStore, ...]:
        """Return the configured stores on all their aliases: the sweep and people look for records there."""
        return tuple(each for store in self.stores for each in store.everywhere())

    def post_url(self) -> str:
        """Return the URL that tasks without one of their own are posted to."""
        return self.url if isinstance(self.url, str) else self.url()

    def store_named(self, name: str, alias: str) -> TaskStore | None:
        """Return the store that a claim check names, else None."""
        for store in self.stores:
            if store.name == name and (not alias or store.has_alias(alias)):
                return store.using(alias or None)
        return None


def build(spec: Any, names: Mapping[str, str], options: Mapping[str, Any], base: type) -> Any:
    """Make an adapter from its short name, its `"module:Class"` (or function) or an instance. Raises ConfigError."""
    if isinstance(spec, base):
        return spec
    if not isinstance(spec, str):
        raise ConfigError(f"{spec!r} is no {base.__name__}: give a name, a 'module:Class' or an instance.")
    factory = _imported(spec, names, base)
    if not callable(factory) or (isinstance(factory, type) and not issubclass(factory, base)):
        raise _wrong_kind(spec, base)
    try:
        made = factory(**options)
    except TypeError as error:
        raise ConfigError(f"{spec!r} does not take these options: {error}") from error
    if not isinstance(made, base):
        raise _wrong_kind(spec, base)
    return made


def class_of(spec: str, names: Mapping[str, str], base: type) -> type:
    """Return the class of an adapter, from its short name or its `"module:Class"`. Raises ConfigError."""
    found = _imported(spec, names, base)
    if not (isinstance(found, type) and issubclass(found, base)):
        raise _wrong_kind(spec, base)
    return found


def _imported(spec: str, names: Mapping[str, str], base: type) -> Any:
    path = names.get(spec, spec)
    module, colon, name = path.partition(":")
    if not colon:
        raise ConfigError(f"There is no {base.__name__} {spec!r}: give one of {', '.join(names)}, or a 'module:Class'.")
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        package = _EXTRAS.get(module.partition(".")[0])
        hint = f" Install {package}." if package and error.name == module.partition(".")[0] else ""
        kind = MissingExtraError if hint else ConfigError
        raise kind(f"{spec!r} cannot be imported: {error}.{hint}") from error
    except AttributeError as error:
        raise ConfigError(f"{spec!r} cannot be found: {error}") from error


def _wrong_kind(spec: str, base: type) -> ConfigError:
    return ConfigError(
        f"{spec!r} is no {base.__name__}: name a subclass of it, or a function that returns an instance."
    )
