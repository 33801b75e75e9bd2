"""The options of `defer()`: good values, and the error for each bad one."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import services

from defer_core import RetryOptions, clock, config, defer
from defer_core.errors import OptionError
from defer_core.send.options import NAMES, parse, split
from defer_core.testing import in_memory

NOW = 1_800_000_000.0
DAY = 86400.0


@pytest.fixture(autouse=True)
def _now() -> Iterator[None]:
    with clock.replaced(lambda: NOW):
        yield


def parsed(**given: Any) -> Any:
    return parse(given, config.Config())


@pytest.mark.parametrize(
    ("given", "eta"),
    [
        ({}, None),
        ({"_countdown": 0}, NOW),
        ({"_countdown": 1.5}, NOW + 1.5),
        ({"_countdown": dt.timedelta(minutes=1)}, NOW + 60),
        ({"_eta": dt.datetime.fromtimestamp(NOW + 5, dt.timezone.utc)}, NOW + 5),
        ({"_eta": dt.datetime.fromtimestamp(NOW + 5, dt.timezone.utc).replace(tzinfo=None)}, NOW + 5),
        ({"_eta": dt.datetime.fromtimestamp(NOW + 5, ZoneInfo("Asia/Tokyo"))}, NOW + 5),
        ({"_countdown": 7, "_eta": dt.datetime(2000, 1, 1)}, NOW + 7),
        ({"_countdown": 30 * DAY}, NOW + 30 * DAY),
    ],
)
def test_when(given: dict[str, Any], eta: float | None) -> None:
    assert parsed(**given).routing.eta == eta


@pytest.mark.parametrize("given", [{"_eta": dt.datetime.min}, {"_countdown": -1e11}], ids=str)
def test_what_was_due_ages_ago_is_due(given: dict[str, Any]) -> None:
    assert parsed(**given).routing.eta == 0.0


@pytest.mark.parametrize(("name", "good", "bad"), [("_small_task", True, 1), ("_transactional", False, 0.0)])
def test_a_value_that_equals_a_remembered_one_is_checked_all_the_same(name: str, good: Any, bad: Any) -> None:
    told = config.Config()
    split({name: good}, told)
    with pytest.raises(OptionError, match=name):
        split({name: bad}, told)


def test_a_url_is_percent_encoded_where_it_must_be() -> None:
    assert parsed(_url="/run?of=caf\xe9 noir").routing.url == "/run?of=caf%C3%A9%20noir"
    assert parsed(_url="https://shop.example/a%20b").routing.url == "https://shop.example/a%20b"


def test_other_keywords_are_the_callables_own_affair() -> None:
    assert split({"given": 1, "_queue": "mail"}, config.Config())[1] == {"given": 1}


def test_a_naive_eta_is_in_the_configured_zone() -> None:
    tokyo = config.Config(timezone=ZoneInfo("Asia/Tokyo"))
    eta = dt.datetime.fromtimestamp(NOW + 60, ZoneInfo("Asia/Tokyo")).replace(tzinfo=None)
    assert parse({"_eta": eta}, tokyo).routing.eta == NOW + 60


@pytest.mark.parametrize(
    ("target", "expected"),
    [("web", ("web", None, None)), ("v1.web", ("web", "v1", None)), ("0.v1.web", ("web", "v1", "0"))],
)
def test_target(target: str, expected: tuple[str | None, ...]) -> None:
    routing = parsed(_target=target).routing
    assert (routing.service, routing.version, routing.instance) == expected


def test_everything_has_its_place() -> None:
    options = parsed(
        _name="n-1_A", _queue="mail-1", _service="s", _version="v", _instance="i", _url="/x", _headers={"A": "b"},
        _retry_options={"max_attempts": 3}, _transactional=False, _using="other", _small_task=True,
        _wipe_related_caches=False, _dispatch_deadline=dt.timedelta(minutes=5),
    )  # fmt: skip
    routing = options.routing
    assert (routing.name, routing.queue, routing.url, routing.headers) == ("n-1_A", "mail-1", "/x", {"A": "b"})
    assert (routing.service, routing.version, routing.instance) == ("s", "v", "i")
    assert routing.retry == RetryOptions(max_attempts=3) and routing.dispatch_deadline == 300
    assert (options.transactional, options.using, options.small, options.wipe_related_caches) == (
        False, "other", True, False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"_countdown": "60"}, "_countdown"),
        ({"_countdown": float("nan")}, "_countdown"),
        ({"_countdown": True}, "_countdown"),
        ({"_countdown": 30 * DAY + 1}, "_countdown is 2592001.*30 days"),
        ({"_eta": 5}, "_eta"),
        ({"_eta": dt.date(2030, 1, 1)}, "_eta"),
        ({"_eta": dt.datetime(2100, 1, 1)}, "_eta is .*2100.* 30 days"),
        ({"_name": "with space"}, "_name"),
        ({"_name": "x" * 501}, "_name"),
        ({"_name": ""}, "_name"),
        ({"_queue": "under_score"}, "_queue"),
        ({"_queue": 5}, "_queue"),
        ({"_target": "a..b"}, "_target"),
        ({"_target": "web", "_service": "web"}, "_target"),
        ({"_url": "relative"}, "_url"),
        ({"_url": 5}, "_url"),
        ({"_url": "/a\n"}, "_url"),
        ({"_url": "https://caf\xe9.example/"}, "_url"),
        ({"_url": "https://"}, "_url"),
        ({"_url": "https:///run"}, "_url"),
        ({"_url": "https://shop.example:high/run"}, "_url"),
        ({"_url": "https://[::1/run"}, "_url"),
        ({"_service": "web shop"}, "_service"),
        ({"_version": ""}, "_version"),
        ({"_instance": "v1.web"}, "_instance"),
        ({"_target": "v1.web shop"}, "_target"),
        ({"_target": "a.b.c.d"}, "_target"),
        ({"_headers": ["A"]}, "_headers"),
        ({"_headers": {"A": 5}}, "_headers"),
        ({"_headers": {"A": "b\r\nC: d"}}, "_headers"),
        ({"_transactional": "yes"}, "_transactional"),
        ({"_small_task": 1}, "_small_task"),
        ({"_wipe_related_caches": "no"}, "_wipe_related_caches"),
        ({"_using": 5}, "_using"),
        ({"_dispatch_deadline": 5}, "_dispatch_deadline"),
        ({"_dispatch_deadline": "long"}, "_dispatch_deadline"),
        ({"_retry_options": 5}, "_retry_options"),
        ({"_retry_options": {"max_attemps": 3}}, "max_attempts"),
        ({"_retry_options": {"max_attempts": -2}}, "max_attempts"),
        ({"_retry_options": {"max_attempts": 0}}, "at least 1, or -1 for no limit"),
        ({"_retry_options": {"max_attempts": 1.5}}, "whole number"),
        ({"_retry_options": {"max_doublings": 0.5}}, "whole number"),
        ({"_retry_options": {"min_backoff": float("inf")}}, "min_backoff"),
        ({"_retry_options": {"task_retry_limit": -1}}, "task_retry_limit"),
        ({"_retry_options": {"min_backoff": 10, "max_backoff": 5}}, "not above their max_backoff"),
        ({"_retry_options": RetryOptions(max_attempts=-7)}, "max_attempts"),
        ({"_countdown": 10**400}, "_countdown"),
        ({"_countdown": float("-inf")}, "_countdown"),
        ({"_headers": {"A": "\u0416"}}, "Latin-1"),
        ({"_headers": {"A": "b\x7f"}}, "_headers"),
        ({"_headers": {"": "x"}}, "_headers"),
        ({"_headers": {"A b": "x"}}, "_headers"),
    ],
)
def test_bad_values_are_refused_naming_the_option(given: dict[str, Any], says: str) -> None:
    with in_memory() as queue:
        with pytest.raises(OptionError, match=says):
            defer(plain, **given)
        assert queue.queued() == []


def plain() -> None:
    pass


def takes(_mine: int, _queue: str = "") -> None:
    pass


def takes_all(**kwargs: Any) -> None:
    pass


def test_an_unknown_option_names_the_nearest() -> None:
    with in_memory(), pytest.raises(TypeError, match="_countdown"):
        defer(plain, _countdwon=5)


def test_underscored_keywords_that_the_callable_takes_are_its_own() -> None:
    settings = config.Config()
    options, rest = split({"_mine": 1, "_queue": "mail"}, settings)
    assert (rest, options.routing.queue) == ({"_mine": 1}, "mail")
    assert split({"_other": 1}, settings)[1] == {"_other": 1}


def test_retry_options_of_the_sdk() -> None:
    taskqueue = services.library("google.appengine.api.taskqueue")
    given = taskqueue.TaskRetryOptions(task_retry_limit=5, task_age_limit=60, min_backoff_seconds=0.5, max_doublings=2)
    expected = RetryOptions(max_attempts=6, max_retry_duration=60, min_backoff=0.5, max_doublings=2)
    assert parsed(_retry_options=given).routing.retry == expected
    assert parsed(_retry_options={"task_retry_limit": 0}).routing.retry == RetryOptions(max_attempts=1)
    assert parsed(_retry_options=expected).routing.retry == expected
    assert parsed(_retry_options={"min_backoff": dt.timedelta(minutes=1)}).routing.retry == RetryOptions(min_backoff=60)


def test_the_names_are_those_of_the_design() -> None:
    assert len(NAMES) == 16 and "_small_task" in NAMES
