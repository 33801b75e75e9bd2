"""System checks: each fault of the settings by its id, with a hint."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.checks import CheckMessage, run_checks
from django.db import connections
from django.test import override_settings

from defer_core.testing import MemoryTransport
from defer_django.models import DeferredTask


class Somewhere(MemoryTransport):
    """A transport that is for production, as far as the checks can tell."""

    default_authenticator = None


class Vouched(MemoryTransport):
    """A transport that brings its authenticator."""

    default_authenticator = "local"


pytestmark = pytest.mark.defer_real
SOMEWHERE = f"{__name__}:Somewhere"


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest's importlib mode does not leave this module where `"module:Class"` looks."""
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or type(sys)(__name__))
    monkeypatch.setattr(sys.modules[__name__], "Somewhere", Somewhere, raising=False)
    monkeypatch.setattr(sys.modules[__name__], "Vouched", Vouched, raising=False)


def found(*, deploy: bool = False, **settings: Any) -> dict[str, CheckMessage]:
    with override_settings(**{"ROOT_URLCONF": "testapp.other_urls", **settings}):
        messages = run_checks(tags=["defer"], include_deployment_checks=deploy)
    assert all(message.hint for message in messages)
    return {str(message.id): message for message in messages}


def test_a_good_project_has_nothing_to_hear() -> None:
    assert found() == {}
    assert found(DEFER={"TRANSPORT": SOMEWHERE, "AUTHENTICATORS": ["appengine"]}, deploy=True) == {}
    assert found(DEFER={"TRANSPORT": f"{__name__}:Vouched"}, deploy=True) == {}


def test_an_unknown_key_is_an_error_that_names_the_nearest() -> None:
    error = found(DEFER={"TRANSPORT": "memory", "INLINE_LIMITS": 1})["defer.E002"]
    assert "INLINE_LIMITS" in error.msg
    assert "INLINE_LIMIT'" in str(error.hint)
    assert "'TRANSPORT'" in str(found(DEFER={"transport": "memory"})["defer.E002"].hint)
    assert found(DEFER={"TRANSPORT": "memory", "TAKE_OVER_DJANGAE": True}) == {}


def test_defer_that_is_no_dict_is_an_error() -> None:
    assert found(DEFER="cloud", deploy=True).keys() == {"defer.E001"}
    assert found(DEFER=["cloud"], deploy=True).keys() == {"defer.E001"}


@pytest.mark.parametrize(
    "given",
    [
        {"TRANSPORT": "clod"},
        {"TRANSPORT": "no.such:Transport"},
        {"TRANSPORT": "memory", "GRACE": -1},
        {"TRANSPORT": "memory", "GRACE": "an hour"},
        {"TRANSPORT": "memory", "AUTHENTICATORS": "appengine"},
        {"TRANSPORT": "memory", "AUTHENTICATORS": ["front"]},
        {"TRANSPORT": "memory", "AUTHENTICATORS": ["oidc"]},  # without its audience
        {"TRANSPORT": "memory", "AUTHENTICATORS": ["cloud-run-iam"], "KEYS": []},
    ],
    ids=str,
)
def test_values_that_make_no_configuration_are_errors(given: dict[str, Any]) -> None:
    assert "defer.E003" in found(DEFER=given)


def test_no_configuration_is_a_warning_that_names_the_choices() -> None:
    hint = str(found(DEFER=None)["defer.W001"].hint)
    assert all(choice in hint for choice in ("cloud", "appengine", "local"))


def test_no_authenticator_is_a_warning_and_an_error_when_deploying(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"TRANSPORT": SOMEWHERE}
    assert found(DEFER=given).keys() == {"defer.W002"}
    assert "defer.E004" in found(DEFER=given, deploy=True)
    assert "defer.E004" in found(DEFER={**given, "AUTHENTICATORS": []}, deploy=True)
    assert "defer.E004" in found(DEFER={"TRANSPORT": "memory"}, deploy=True)
    assert "defer.E004" in found(DEFER=None, deploy=True)
    assert found(DEFER={"TRANSPORT": "memory", "AUTHENTICATORS": []}).keys() == {"defer.W002"}
    assert {"defer.E003", "defer.E004"} <= found(DEFER={"TRANSPORT": "no.such:Transport"}, deploy=True).keys()
    monkeypatch.setenv("GAE_ENV", "standard")
    assert found(DEFER=given, deploy=True) == {}


@pytest.mark.parametrize("queues", [[{"name": "default", "rate": 5}], [5], [{"rate_per_second": 5}]], ids=str)
def test_a_queue_that_is_none_is_a_warning(queues: list[Any]) -> None:
    assert found(DEFER={"TRANSPORT": "memory", "QUEUES": queues}).keys() == {"defer.W007"}
    assert found(CLOUD_TASKS_QUEUES=queues).keys() == {"defer.W007"}
    assert found(CLOUD_TASKS_QUEUES=[{"name": "default", "rate_per_second": "1"}]) == {}  # as Djangae's page has it


def test_nothing_that_sweeps_is_a_warning() -> None:
    given = {"TRANSPORT": f"{__name__}:Vouched", "SWEEP_INTERVAL": 0}
    assert found(DEFER=given).keys() == {"defer.W003"}


def test_a_project_without_the_handlers_url_is_warned() -> None:
    given = {"TRANSPORT": f"{__name__}:Vouched"}
    assert found(DEFER=given, ROOT_URLCONF="testapp.no_urls").keys() == {"defer.W004"}
    assert found(DEFER={**given, "URL": "https://worker/x"}, ROOT_URLCONF="testapp.no_urls") == {}


def test_a_redirect_to_https_is_warned_of() -> None:
    redirected = {
        "DEFER": {"TRANSPORT": f"{__name__}:Vouched"},
        "MIDDLEWARE": ["django.middleware.security.SecurityMiddleware"],
        "SECURE_SSL_REDIRECT": True,
    }
    warning = found(**redirected)["defer.W005"]
    assert "tasks/deferred/" in str(warning.hint)
    assert found(**redirected, SECURE_REDIRECT_EXEMPT=[r"^tasks/deferred/"]) == {}


class OnlyDefault:
    """A router that keeps every table in the default database."""

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        return db == "default"


def test_an_alias_that_routers_keep_our_table_from_is_said_to_be_one() -> None:
    with override_settings(DATABASE_ROUTERS=[OnlyDefault()]):
        told = [each.msg for each in run_checks(tags=["defer"]) if each.id == "defer.I001"]
    assert any("'other'" in each for each in told) and not any("'default'" in each for each in told)


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_an_alias_without_our_table_is_found_by_the_database_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    with connections["other"].schema_editor() as editor:
        editor.delete_model(DeferredTask)
    try:
        messages = run_checks(databases=["default", "other"])
        monkeypatch.setattr("sys.argv", ["manage.py", "migrate", "--database", "other"])
        assert "defer.W006" not in [each.id for each in run_checks(databases=["other"])]
    finally:
        with connections["other"].schema_editor() as editor:
            editor.create_model(DeferredTask)
    [message] = [each for each in messages if each.id == "defer.W006"]
    assert "'other'" in message.msg
    assert "--database other" in str(message.hint)
