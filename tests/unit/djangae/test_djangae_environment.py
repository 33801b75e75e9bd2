"""What a request says of the task that it delivers, and who may see a view."""

import pytest
from djangae.tasks import decorators, environment
from djangae.tasks.middleware import task_environment_middleware
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpResponse
from django.test import RequestFactory, override_settings

from defer_core import Delivery
from defer_core.delivery import running
from defer_djangae import environment as gae

HEADERS = {
    "HTTP_X_APPENGINE_TASKNAME": "t1",
    "HTTP_X_APPENGINE_QUEUENAME": "slow",
    "HTTP_X_APPENGINE_TASKRETRYCOUNT": "2",
    "HTTP_X_APPENGINE_TASKEXECUTIONCOUNT": "1",
}


@pytest.fixture(autouse=True)
def middleware(monkeypatch):
    """On App Engine, with the middleware."""
    monkeypatch.delenv("K_SERVICE", raising=False)
    monkeypatch.setenv("GAE_ENV", "standard")
    with override_settings(MIDDLEWARE=["djangae.tasks.middleware.TaskEnvironmentMiddleware"]):
        yield


def seen(**meta):
    """The environment that a view sees in a request with these headers."""
    answers = []

    def view(request):
        names = ("is_in_task", "is_in_cron", "task_name", "task_queue_name", "task_retry_count", "task_execution_count")
        answers.extend(getattr(environment, name)() for name in names)
        return HttpResponse()

    task_environment_middleware(view)(RequestFactory().get("/", **meta))
    return answers


def test_the_middleware_notes_the_headers_of_a_task_and_forgets_them():
    assert seen(**HEADERS) == [True, False, "t1", "slow", 2, 1]
    assert seen() == [False, False, None, None, None, None]
    assert environment.task_name() is None


def test_a_cron_job_is_no_task():
    assert seen(HTTP_X_APPENGINE_CRON="true") == [False, True, None, None, None, None]


def test_the_queue_and_the_counts_of_a_task_that_says_little():
    assert seen(HTTP_X_APPENGINE_TASKNAME="t1", HTTP_X_APPENGINE_TASKRETRYCOUNT="x") == [
        True, False, "t1", "default", None, 0,
    ]  # fmt: skip


EVERY = {**HEADERS, "HTTP_X_APPENGINE_CRON": "true"}


@pytest.mark.parametrize("gae_env", [None, "", "localdev", "development"])
@pytest.mark.parametrize("cloud_run", [False, True])
def test_elsewhere_anybody_can_send_these_headers_so_they_count_for_nothing(monkeypatch, gae_env, cloud_run):
    monkeypatch.delenv("GAE_ENV")
    if gae_env is not None:
        monkeypatch.setenv("GAE_ENV", gae_env)
    if cloud_run:
        monkeypatch.setenv("K_SERVICE", "museum")
    assert seen(**HEADERS) == [True, False, "t1", "slow", 2, 1]  # a site's own tests send them
    monkeypatch.setattr("defer_django.conf.in_tests", lambda: False)
    assert seen(**EVERY) == [False, False, None, None, None, None]
    for decorator in (decorators.task_only, decorators.task_or_superuser_only):
        assert ask(decorator, **EVERY) == ask(decorator, HTTP_X_APPENGINE_CRON="true") == 403
    view = decorators.csrf_exempt_if_task(lambda request: HttpResponse("hello"))
    with environment.of_request(EVERY):
        assert view.csrf_exempt is False
    with override_settings(DEBUG=True):  # in development
        assert seen(**HEADERS) == [True, False, "t1", "slow", 2, 1]
        assert ask(decorators.task_only, HTTP_X_APPENGINE_CRON="true") == 200


def test_a_task_that_came_through_an_authenticator_is_one_anywhere(monkeypatch):
    monkeypatch.delenv("GAE_ENV")
    token = running.set(Delivery(task_name="t2", queue="slow"))
    try:
        assert seen()[:4] == [True, False, "t2", "slow"]
        assert ask(decorators.task_only) == 200
    finally:
        running.reset(token)


def test_a_delivery_of_defer_is_known_without_headers():
    token = running.set(Delivery(task_name="t2", queue="", retry_count=3, execution_count=None))
    try:
        assert seen(**HEADERS) == [True, False, "t2", "default", 3, 0]
    finally:
        running.reset(token)


async def _ask(request):
    return HttpResponse(environment.task_name())


def test_the_middleware_is_asynchronous_where_the_rest_is():
    import asyncio

    request = RequestFactory().get("/", **HEADERS)
    response = asyncio.run(task_environment_middleware(_ask)(request))
    assert response.content == b"t1"


def test_without_the_middleware_the_remedy_is_named():
    assert seen() == [False, False, None, None, None, None]  # what a request has left behind is no middleware
    with override_settings(MIDDLEWARE=[]), pytest.raises(ImproperlyConfigured, match="TaskEnvironmentMiddleware"):
        environment.is_in_task()


def test_a_request_leaves_nothing_behind_of_what_sites_tests_have_set():
    environment._TASK_ENV.task_name = "by hand"
    assert environment.task_name() == "by hand"
    assert seen() == [False, False, None, None, None, None]
    assert environment.task_name() is None


def ask(decorator, user=None, **meta):
    """The status with which a decorated view answers."""
    view = decorator(lambda request: HttpResponse("hello"))
    request = RequestFactory().get("/", **meta)
    request.user = user
    return task_environment_middleware(view)(request).status_code


class Superuser:
    is_authenticated = is_superuser = True


def test_views_for_tasks_and_cron_jobs():
    assert ask(decorators.task_only) == 403
    assert ask(decorators.task_only, **HEADERS) == 200
    assert ask(decorators.task_only, HTTP_X_APPENGINE_CRON="true") == 200
    assert ask(decorators.task_only, Superuser()) == 403


def test_views_for_tasks_and_superusers():
    assert ask(decorators.task_or_superuser_only) == 403
    assert ask(decorators.task_or_superuser_only, Superuser()) == 200
    assert ask(decorators.task_or_superuser_only, **HEADERS) == 200


def test_views_for_app_engine_itself():
    assert ask(decorators.internal_only) == 403
    assert ask(decorators.internal_only, REMOTE_ADDR="0.1.0.3") == 200
    with override_settings(NUM_PROXIES=1):
        assert ask(decorators.internal_only, HTTP_X_FORWARDED_FOR="0.1.0.3, 8.8.8.8") == 403
        assert ask(decorators.internal_only, HTTP_X_FORWARDED_FOR="8.8.8.8, 0.1.0.3") == 200


def test_no_csrf_check_for_tasks():
    view = decorators.csrf_exempt_if_task(lambda request: HttpResponse("hello"))
    assert view.csrf_exempt is False
    with environment.of_request(HEADERS):
        assert view.csrf_exempt is True
    assert view(RequestFactory().post("/")).status_code == 200


def test_sites_can_replace_what_the_decorators_ask(monkeypatch):
    monkeypatch.setattr("djangae.tasks.decorators.is_in_task", lambda: True)
    assert ask(decorators.task_only) == 200


def test_regions():
    assert environment.tasks_location("e~museum") == "europe-west1"
    assert environment.tasks_location("zwn~museum") == "us-west4"
    assert environment.tasks_location("xxx~museum") is None


def test_the_process(monkeypatch, tmp_path):
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "museum")
    monkeypatch.setenv("GAE_VERSION", "v7")
    monkeypatch.setenv("GAE_ENV", "standard")
    assert (gae.project_id(), gae.gae_version(), gae.gae_service_name()) == ("museum", "v7", "default")
    assert gae.app_host() == "v7-dot-museum.appspot.com"
    assert gae.is_production_environment()
    monkeypatch.setenv("GAE_ENV", "localdev")
    assert gae.is_development_environment()
    (tmp_path / "app.yaml").touch()
    monkeypatch.setenv("DJANGAE_APP_YAML_LOCATION", str(tmp_path))
    gae.get_application_root.cache_clear()
    assert gae.get_application_root() == str(tmp_path)
    gae.get_application_root.cache_clear()
