"""Django settings as the configuration of core."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from collections.abc import Callable, Iterator

import pytest
from django.core.checks import Error, run_checks
from django.db import transaction
from django.test import Client, override_settings
from django.urls import get_script_prefix, set_script_prefix, set_urlconf
from django.utils import translation
from testapp.models import Tag
from testapp.tasks import record

from defer_core import ConfigError, configure, defer, defer_many
from defer_core.spi import CloudTasksTransport, current, parse_options
from defer_core.testing import MemoryTransport
from defer_django import conf
from defer_django.store import DjangoTaskStore
from defer_iteration import defer_iteration_with_finalize

pytestmark = pytest.mark.defer_real


def test_the_dict_in_capitals_is_the_configuration() -> None:
    with override_settings(DEFER={"TRANSPORT": "memory", "INLINE_LIMIT": 2048, "CALLABLES": ["shop.*"]}):
        config = current()
        assert (config.transport, config.inline_limit, config.callables) == ("memory", 2048, ["shop.*"])
    assert current().inline_limit == 100 * 1024


def test_every_field_of_the_configuration_has_a_key() -> None:
    assert {"TRANSPORT", "STORE", "KEYS", "AUTHENTICATORS", "SWEEP_GRACE", "ACCEPT_LEGACY_PICKLES"} <= conf.FIELDS


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
    for ours in ("django", "defer_django.stores:task_store", "defer_django.store:DjangoTaskStore", DjangoTaskStore()):
        with override_settings(DEFER={"TRANSPORT": "memory", "STORE": ours}):
            assert current().joins == ()
            assert isinstance(current().the_store, DjangoTaskStore)


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


@override_settings(DEFER=None, CLOUD_TASKS_LOCATION="europe-west1")
def test_a_djangae_site_without_a_project_has_djangaes(monkeypatch: pytest.MonkeyPatch) -> None:
    def parent() -> str:
        transport = conf.from_settings().the_transport
        assert isinstance(transport, CloudTasksTransport)
        return transport.target.parent

    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT", raising=False)
    assert [each for each in run_checks(tags=["defer"]) if isinstance(each, Error)] == []
    assert parent() == "projects/example/locations/europe-west1"
    monkeypatch.setenv("CLOUD_TASKS_EMULATOR_HOST", "127.0.0.1:1")
    assert parent() == "projects/example/locations/europe-west1"
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "shop")
    assert parent() == "projects/shop/locations/europe-west1"
    with override_settings(CLOUD_TASKS_PROJECT_ID="other"):
        assert parent() == "projects/other/locations/europe-west1"
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT")
    with override_settings(DEFER={"TRANSPORT": "cloud"}):  # no Djangae's: the transport finds the credentials' project
        assert "project" not in conf.from_settings().transport_options


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
        assert parse_options({"_eta": soon.replace(tzinfo=None)}, current()).routing.eta == soon.timestamp()


def test_the_url_is_the_handlers_where_the_project_has_one() -> None:
    with override_settings(ROOT_URLCONF="testapp.no_urls"):
        assert current().post_url() == "/_ah/queue/deferred"
    with override_settings(ROOT_URLCONF="testapp.other_urls"):
        assert current().post_url() == "/tasks/deferred/"


@pytest.fixture
def own_urls() -> Iterator[None]:
    """As in a request for which a middleware has set `request.urlconf`, in another language than the queue's."""
    set_urlconf("testapp.no_urls")
    with translation.override("de"):
        yield
    set_urlconf(None)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("own_urls")
@override_settings(ROOT_URLCONF="testapp.other_urls")
def test_tasks_go_to_the_project_s_handler_whatever_urls_a_request_has() -> None:
    sends: list[Callable[[], object]] = [
        lambda: defer(record, 1),
        lambda: defer(record, 1, _small_task=True),
        lambda: defer(record, b"x" * 200_000),
        lambda: defer_many(record, [(1,), (2,)]),
        lambda: defer_iteration_with_finalize(Tag.objects.all(), record, record),
    ]
    for send in sends:
        send()
        with transaction.atomic():
            send()
    transport = current().the_transport
    assert isinstance(transport, MemoryTransport)
    assert len(transport.queued()) >= 12
    assert {each.message.routing.url for each in transport.queued()} == {"/tasks/deferred/"}


LOCALE = "django.middleware.locale.LocaleMiddleware"


@pytest.mark.usefixtures("own_urls")
@pytest.mark.parametrize("middleware", [[], [LOCALE]], ids=["without", "with"])
@pytest.mark.parametrize("language", ["en-us", "en", "fr"])
def test_a_request_without_a_language_finds_the_handler(middleware: list[str], language: str) -> None:
    urls = "testapp.localised_urls"
    with override_settings(ROOT_URLCONF=urls, MIDDLEWARE=middleware, LANGUAGE_CODE=language):
        url = current().post_url()
        set_urlconf(None)
        with translation.override(language):
            assert Client(raise_request_exception=False).post(url).status_code == 500  # which is the handler's own


def test_the_url_is_below_the_script_s_name() -> None:
    before = get_script_prefix()
    set_script_prefix("/shop/")
    try:
        assert current().post_url() == "/shop/_ah/queue/deferred"
    finally:
        set_script_prefix(before)


def test_bad_values_are_said_at_once() -> None:
    with override_settings(DEFER={"INLINE_LIMIT": -3}), pytest.raises(ConfigError, match="inline_limit"):
        current()
