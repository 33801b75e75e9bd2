"""The names of Djangae that are given back, and that each is what it says."""

from importlib import import_module

import pytest

NAMES = {
    "djangae.deferred": (
        "defer defer_iteration_with_finalize get_deferred_shard_index DEFERRED_ITERATION_SHARD_INDEX_KEY "
        "Error PermanentTaskFailure SingularTaskFailure TimeoutException invoke_member get_transaction "
        "_process_shard _generate_shards _run_from_datastore"
    ),
    "djangae.tasks": (
        "get_cloud_tasks_client ensure_required_queues_exist cloud_tasks_project cloud_tasks_location "
        "cloud_tasks_parent_path cloud_tasks_queue_path CLOUD_TASKS_PROJECT_SETTING "
        "CLOUD_TASKS_LOCATION_SETTING"
    ),
    "djangae.tasks.models": "DeferredTask",
    "djangae.tasks.apps": "DjangaeTasksConfig",
    "djangae.tasks.urls": "urlpatterns",
    "djangae.tasks.handlers": "deferred_handler",
    "djangae.tasks.middleware": "task_environment_middleware TaskEnvironmentMiddleware",
    "djangae.tasks.decorators": "task_only task_or_superuser_only csrf_exempt_if_task internal_only",
    "djangae.tasks.environment": (
        "is_in_task is_in_cron task_name task_queue_name task_retry_count task_execution_count tasks_location"
    ),
    "djangae.tasks.test": (
        "TaskFailedBehaviour TaskFailedError TestCaseMixin process_task_queues get_task_count flush_task_queues "
        "assertNumTasksEquals TestCase TransactionTestCase AppEngineDiscoverRunner"
    ),
    "djangae.test": (
        "TaskFailedBehaviour TaskFailedError TestCaseMixin TestCase TransactionTestCase process_task_queues "
        "AppEngineDiscoverRunner get_task_count flush_task_queues "
        "assertNumTasksEquals"
    ),
    "djangae.processing": (
        "datastore_key_ranges sequential_int_key_ranges uuid_key_ranges SampledKeyRangeGenerator "
        "firestore_scattered_int_key_ranges firestore_name_key_ranges firebase_uid_key_ranges nth_string "
        "get_stable_order get_batch_filter iterate_in_chunks"
    ),
    "djangae.settings_base": (
        "FILE_CACHE_LOCATION CACHES LOGGING ALLOWED_HOSTS DEFAULT_AUTO_FIELD CLOUD_TASKS_LOCATION NUM_PROXIES "
        "MIDDLEWARE"
    ),
    "djangae.environment": (
        "application_id project_id is_production_environment is_development_environment gae_service_name "
        "gae_version get_application_root default_gcs_bucket_name default_app_host app_host"
    ),
    "djangae.urls": "urlpatterns",
    "djangae.sandbox": "start_emulators stop_emulators enable_test_environment_variables",
    "djangae.models": "DeferIterationMarker",
    "djangae.apps": "DjangaeConfig",
}
NAMES["djangae.tasks.deferred"] = NAMES["djangae.deferred"]


@pytest.mark.parametrize("module", sorted(NAMES))
def test_every_name_is_there(module):
    found = import_module(module)
    assert [name for name in NAMES[module].split() if not hasattr(found, name)] == []


def test_both_modules_of_deferred_are_one_and_what_travels_has_canonical_names():
    import djangae.deferred
    import djangae.tasks.deferred

    import defer_core
    from defer_core import Config
    from defer_core.spi import to_ref

    assert djangae.deferred is djangae.tasks.deferred
    assert djangae.tasks.deferred.PermanentTaskFailure is defer_core.PermanentTaskFailure
    wire = to_ref(djangae.tasks.deferred.invoke_member, Config())
    assert wire == "defer_djangae.deferred:invoke_member"


def test_a_name_that_never_was_is_an_attribute_error():
    import djangae.deferred

    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = djangae.deferred.nothing_of_the_kind


def test_the_settings_have_djangaes_values(monkeypatch):
    from defer_djangae import settings_base

    assert settings_base.DEFAULT_AUTO_FIELD == "django.db.models.BigAutoField"
    assert settings_base.ALLOWED_HOSTS == ("*",)
    assert settings_base.NUM_PROXIES == 1
    assert settings_base.CLOUD_TASKS_LOCATION == "europe-west1"
    assert settings_base.CACHES["default"]["BACKEND"].endswith("FileBasedCache")
    assert settings_base.LOGGING["loggers"]["djangae"] == {"level": "INFO"}
    assert not any("djangae" in each for each in settings_base.MIDDLEWARE)
    assert "django.middleware.csrf.CsrfViewMiddleware" in settings_base.MIDDLEWARE


def test_the_settings_leave_djangos_own_logging_as_it_is():
    from django.utils.log import DEFAULT_LOGGING

    from defer_djangae import settings_base

    assert settings_base.LOGGING["loggers"] is not DEFAULT_LOGGING["loggers"]
    assert "djangae" not in DEFAULT_LOGGING["loggers"]


@pytest.mark.parametrize(
    "given,service,version",
    [
        ({}, None, None),
        ({"_version": "v7"}, None, "v7"),
        ({"_version": "default"}, "museum", None),
        ({"_version": "default", "_service": "back"}, "back", None),
    ],
)
def test_the_default_version_is_that_of_the_service_when_the_task_runs(monkeypatch, given, service, version):
    from djangae.tasks.deferred import defer

    from defer_core.testing import in_memory

    monkeypatch.setenv("GAE_SERVICE", "museum")
    with in_memory():
        routing = defer(print, "hello", **given).routing
    assert (routing.service, routing.version) == (service, version)
