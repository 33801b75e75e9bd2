"""Django settings as the configuration of core."""

from __future__ import annotations

import datetime as dt
import zoneinfo

import pytest
from django.test import override_settings
from testapp.tasks import record

from defer_core import ConfigError, defer
from defer_core.config import configure, current
from defer_core.options import parse
from defer_django import conf
from defer_django.store import DjangoTaskStore


def test_the_dict_in_capitals_is_the_configuration() -> None:
    with override_settings(DEFER={"TRANSPORT": "memory", "INLINE_LIMIT": 2048, "CALLABLES": ["shop.*"]}):
        config = current()
        assert (config.transport, config.inline_limit, config.callables) == ("memory", 2048, ["shop.*"])
    assert current().inline_limit == 100 * 1024


def test_every_field_of_the_configuration_has_a_key() -> None:
    assert {"TRANSPORT", "STORE", "KEYS", "DOORS", "SWEEP_GRACE", "ACCEPT_LEGACY_PICKLES"} <= conf.FIELDS


def test_tasks_are_signed_by_the_secret_key_and_verified_by_the_old_ones() -> None:
    with override_settings(SECRET_KEY="new" * 20, SECRET_KEY_FALLBACKS=["old" * 20]):
        assert current().keys == ("new" * 20, "old" * 20)
        assert current().signer is not None
    with override_settings(DEFER={"KEYS": ["own"]}):
        assert current().keys == ["own"]


def test_the_store_is_the_database() -> None:
    assert isinstance(current().the_store, DjangoTaskStore)
    with override_settings(DEFER={"TRANSPORT": "memory", "STORE_OPTIONS": {"alias": "other"}}):
        store = current().the_store
        assert store is not None
        assert store.alias == "other"


@pytest.mark.parametrize("store", ["memory", "ndb"])
def test_the_database_s_transactions_are_joined_whatever_the_store(store: str) -> None:
    with override_settings(DEFER={"TRANSPORT": "memory", "STORE": store}):
        assert current().joins == ("django",)
    with override_settings(DEFER={"TRANSPORT": "memory", "STORE": store, "JOINS": []}):
        assert current().joins == []
    for ours in ("django", "defer_django.store:DjangoTaskStore", DjangoTaskStore()):
        with override_settings(DEFER={"TRANSPORT": "memory", "STORE": ours}):
            assert current().joins == ()


def test_configure_goes_before_settings() -> None:
    configure(transport="immediate")
    assert current().transport == "immediate"


@override_settings(DEBUG=True, DEFER=None)
def test_debug_and_no_configuration_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    assert current().transport == "local"
    assert isinstance(current().the_store, DjangoTaskStore)
    monkeypatch.setenv("GAE_ENV", "standard")
    assert conf.from_settings().transport is None


@override_settings(DEFER=None)
def test_no_debug_and_no_configuration_is_an_error() -> None:
    with pytest.raises(ConfigError, match="cloud"):
        defer(record, _transactional=False)


@override_settings(DEFER=None)
def test_djangaes_names_are_a_fall_back() -> None:
    with override_settings(CLOUD_TASKS_PROJECT_ID="shop", CLOUD_TASKS_LOCATION="europe-west1"):
        config = current()
        assert config.transport == "cloud"
        assert config.transport_options == {"project": "shop", "location": "europe-west1"}
        with override_settings(DEFER={"TRANSPORT": "memory"}):
            assert (current().transport, current().transport_options) == ("memory", {})
        with override_settings(DEFER={"TRANSPORT": "cloud", "TRANSPORT_OPTIONS": {"location": "us-east1"}}):
            assert current().transport_options == {"project": "shop", "location": "us-east1"}
        with override_settings(DEBUG=True):
            assert current().transport == "local"


def test_environment_variables_fill_what_the_dict_leaves_open(
    monkeypatch: pytest.MonkeyPatch, settings: object
) -> None:
    monkeypatch.setenv("DEFER_TRANSPORT", "immediate")
    monkeypatch.setenv("DEFER_INLINE_LIMIT", "4096")
    assert conf.from_settings().transport == "memory"
    assert conf.from_settings().inline_limit == 4096
    with override_settings(DEBUG=True, DEFER=None):
        assert conf.from_settings().transport == "immediate"


def test_a_naive_eta_is_in_the_default_time_zone() -> None:
    with override_settings(TIME_ZONE="Asia/Tokyo"):
        soon = dt.datetime.now(zoneinfo.ZoneInfo("Asia/Tokyo")) + dt.timedelta(seconds=60)
        assert parse({"_eta": soon.replace(tzinfo=None)}, current()).routing.eta == soon.timestamp()


def test_the_url_is_the_handlers_where_the_project_has_one() -> None:
    with override_settings(ROOT_URLCONF="testapp.no_urls"):
        assert current().post_url() == "/_ah/queue/deferred"
    with override_settings(ROOT_URLCONF="testapp.other_urls"):
        assert current().post_url() == "/tasks/deferred/"


def test_bad_values_are_said_at_once() -> None:
    with override_settings(DEFER={"INLINE_LIMIT": -3}), pytest.raises(ConfigError, match="inline_limit"):
        current()
