"""The underscored keywords of `defer()`: their names, and what each may be."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import lru_cache, partial
from typing import Any, TypeGuard

from .. import clock
from ..config import Config, nearest
from ..config.queues import QUEUE
from ..errors import OptionError
from ..http_syntax import encoded, is_header, is_url
from ..task import RetryOptions, Routing, TaskOptions

NAMES = frozenset(
    "_countdown _eta _name _queue _target _service _version _instance _url _headers _retry_options _transactional "
    "_using _small_task _wipe_related_caches _dispatch_deadline".split()
)
MAX_ETA = 30 * 86400.0
"""Seconds ahead that a queue accepts a task for."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,500}\Z")
"""The short name of a queue."""
_PART = re.compile(r"[A-Za-z0-9_-]{1,100}\Z")
"""A service, version or instance."""
_FAR = 1e12
DEADLINES = (15.0, 86415.0)
"""Seconds, least and most, that a queue gives one attempt."""


def split(kwargs: dict[str, Any], config: Config) -> tuple[TaskOptions, dict[str, Any]]:
    """Return the options among `kwargs`, and the rest, which belongs to the call. Raises OptionError."""
    given: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for key, value in kwargs.items():
        (given if key in NAMES else rest)[key] = value
    return (_parsed_once(given, config) if given.keys() <= _STEADY else parse(given, config)), rest


_STEADY = frozenset({"_queue", "_small_task", "_transactional", "_using", "_target", "_service", "_version"})
"""Options that mean the same at each call, and mostly are the same at each."""


def _parsed_once(given: dict[str, Any], config: Config) -> TaskOptions:
    try:
        return config.derive(_steady_parser)(**given)
    except TypeError:  # bad values, and those that cannot be hashed
        return parse(given, config)


def _steady_parser(config: Config) -> Callable[..., TaskOptions]:
    """Return a function that parses each set of steady options once."""
    return lru_cache(maxsize=256, typed=True)(partial(_parse_steady, config))


def _parse_steady(config: Config, **given: Any) -> TaskOptions:
    """Parse, and fill in the configured URL if it is the same at each call."""
    parsed = parse(given, config)
    if not isinstance(config.url, str):
        return parsed
    return replace(parsed, routing=replace(parsed.routing, url=config.url))


def check_keywords(func: Callable[..., Any], keywords: Mapping[Any, Any]) -> None:
    """Raise OptionError for a key that is no keyword of a call: not a string, or an option that is not the callable's
    own."""
    for key in keywords:
        if not isinstance(key, str):
            raise OptionError(f"{key!r} is no keyword: the keys of a call's mapping are the names of arguments.")
        if key in NAMES and key not in _parameters(func):
            raise OptionError(f"{key!r} is an option, which one call cannot have: pass it to defer_many(), for all.")


def _parameters(func: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(func).parameters
    except (TypeError, ValueError):
        return {}


def parse(given: Mapping[str, Any], config: Config) -> TaskOptions:
    """Return TaskOptions for underscored keywords. Raises OptionError naming the option and what it may be."""
    get = given.get
    service, version, instance = _target(given)
    return TaskOptions(
        routing=Routing(
            queue=_text(given, "_queue", QUEUE, "letters, digits and hyphens, 100 at most") or "default",
            name=_text(given, "_name", _NAME, "letters, digits, hyphens and underscores, 500 at most"),
            eta=_eta(get("_countdown"), get("_eta"), config),
            url=_url(get("_url")),
            headers=_headers(get("_headers")),
            service=service,
            version=version,
            instance=instance,
            retry=retry_options(get("_retry_options")),
            dispatch_deadline=_seconds("_dispatch_deadline", get("_dispatch_deadline"), *DEADLINES),
        ),
        transactional=_flag(given, "_transactional", None),
        using=_text(given, "_using", None, "a database alias"),
        small=bool(_flag(given, "_small_task", False)),
        wipe_related_caches=bool(_flag(given, "_wipe_related_caches", True)),
    )


def _bad(name: str, value: Any, expected: str) -> OptionError:
    return OptionError(f"{name} is {value!r}: it must be {expected}.")


def _text(given: Mapping[str, Any], name: str, pattern: re.Pattern[str] | None, expected: str) -> str | None:
    value = given.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not value or (pattern and not pattern.match(value)):
        raise _bad(name, value, expected)
    return str(value)


def _flag(given: Mapping[str, Any], name: str, default: bool | None) -> bool | None:
    value = given.get(name, default)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise _bad(name, value, "True or False")
    return value


def _is_number(value: Any) -> TypeGuard[int | float]:
    """Return True for a number, but not for NaN, infinity or a time beyond all dates."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -_FAR <= value <= _FAR


def _seconds(name: str, value: Any, least: float, most: float) -> float | None:
    if value is None:
        return None
    if hasattr(value, "total_seconds"):
        value = value.total_seconds()
    if not _is_number(value) or not least <= value <= most:
        raise _bad(name, value, f"a number of seconds from {least:g} to {most:g}")
    return float(value)


def _eta(countdown: Any, eta: Any, config: Config) -> float | None:
    """Return the time that `_countdown` gives, else `_eta`. A naive `_eta` is in the configured zone (UTC, as in the
    SDK, unless a framework says otherwise)."""
    if countdown is not None:
        if hasattr(countdown, "total_seconds"):
            countdown = countdown.total_seconds()
        if not _is_number(countdown):
            raise _bad("_countdown", countdown, "a number of seconds")
        when = clock.now() + countdown
    elif eta is None:
        return None
    elif isinstance(eta, datetime):
        zone = config.timezone() if callable(config.timezone) else config.timezone
        when = (eta if eta.tzinfo else eta.replace(tzinfo=zone)).timestamp()
    else:
        raise _bad("_eta", eta, "a datetime")
    if when > clock.now() + MAX_ETA:
        name, given = ("_eta", eta) if countdown is None else ("_countdown", countdown)
        raise OptionError(f"{name} is {given!r}: it must be at most 30 days ahead, the limit of the queues.")
    return max(when, 0.0)  # not every queue can express a year before 1970, and the task is due all the same


def _url(value: Any) -> str | None:
    if value is None:
        return None
    url = encoded(value) if isinstance(value, str) else ""
    if not is_url(url):
        raise _bad("_url", value, "a path that begins with '/', or an absolute URL")
    return url


def _headers(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(k, str) and isinstance(v, str) for k, v in value.items()):
        raise OptionError(f"_headers is a {type(value).__name__}: it must be a mapping of strings to strings.")
    for key, text in value.items():
        if not is_header(key, text):  # its value is not shown: it may be a token
            expected = "a valid HTTP name, and a value in Latin-1 without line breaks"
            raise OptionError(f"_headers[{key!r}] is not a header: it must be {expected}.")
    return dict(value)


def _target(given: Mapping[str, Any]) -> tuple[str | None, str | None, str | None]:
    """Return service, version and instance; `_target` is `service`, `version.service` or `instance.version.service`, as
    in the SDK."""
    expected = "letters, digits, hyphens and underscores, 100 at most"
    named = [_text(given, f"_{part}", _PART, expected) for part in ("service", "version", "instance")]
    target = _text(given, "_target", None, "'service' or 'version.service'")
    if target is None:
        return named[0], named[1], named[2]
    if any(named):
        raise OptionError("_target and _service, _version or _instance say the same thing: give one of them.")
    parts = target.split(".")
    if len(parts) > 3 or not all(map(_PART.match, parts)):
        raise _bad("_target", target, "'service' or 'version.service'")
    service, version, instance = [*reversed(parts), None, None][:3]
    return service, version, instance


_SDK_RETRY = {
    "task_retry_limit": "max_attempts",
    "task_age_limit": "max_retry_duration",
    "min_backoff_seconds": "min_backoff",
    "max_backoff_seconds": "max_backoff",
    "max_doublings": "max_doublings",
}


def retry_options(value: Any) -> RetryOptions | None:
    """Return RetryOptions from ours, the SDK's TaskRetryOptions, or a dict with the names of either. Raises
    OptionError."""
    if value is None:
        return None
    if isinstance(value, Mapping | RetryOptions):
        given = dict(value) if isinstance(value, Mapping) else vars(value)
    elif all(hasattr(value, name) for name in _SDK_RETRY):
        given = {name: getattr(value, name) for name in _SDK_RETRY}
    else:
        raise _bad("_retry_options", value, "a RetryOptions, a dict or the SDK's TaskRetryOptions")
    renamed: dict[str, Any] = {}
    for key, number in given.items():
        name = _SDK_RETRY.get(key, key)
        if name not in RetryOptions.__dataclass_fields__:
            raise OptionError(f"_retry_options has no {key!r}{nearest(key, set(RetryOptions.__dataclass_fields__))}.")
        if number is not None:
            renamed[name] = _retry_number(key, number)
    if renamed.get("min_backoff", 0) > renamed.get("max_backoff", _FAR):
        raise _bad("_retry_options", value, "options whose min_backoff is not above their max_backoff")
    return RetryOptions(**renamed)


def _retry_number(key: str, number: Any) -> int | float:
    if hasattr(number, "total_seconds"):
        number = number.total_seconds()
    whole = key in ("max_attempts", "max_doublings", "task_retry_limit")
    good = _is_number(number) and (number > 0 or number == (-1 if key == "max_attempts" else 0))
    if not good or (whole and number != int(number)):
        least = "at least 1, or -1 for no limit" if key == "max_attempts" else "at least 0"
        raise _bad(f"_retry_options[{key!r}]", number, f"a {'whole ' if whole else ''}number, {least}")
    # the SDK counts repetitions, Cloud Tasks counts attempts
    return int(number) + (key == "task_retry_limit") if whole else float(number)
