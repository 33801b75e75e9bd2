"""The public names of defer_core, and of its spi: to remove one, or to break its users, takes a new major version."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import defer_core
from defer_core import spi, testing
from defer_core.config import Config
from defer_core.errors import CallableForbiddenError
from defer_core.wire.callables import from_ref

NAMES = """
BulkSendError Call CallableError CallableForbiddenError CloudLoggingFormatter Config ConfigError DeferError Delivery
Health LoggedOnce NotInTransactionError OptionError Outcome PayloadTooLargeError PermanentTaskFailure RetryOptions
Routing SingularTaskFailure Status Task TaskAlreadyExistsError TaskHandle TaskOptions TaskTooLargeError TransportError
UnserializableError __version__ adefer configure current_delivery defer defer_many enqueue execute health
install_signal_handlers is_stopping register_type run_envelope with_signal_handlers
""".split()
SPI = """
Attempt BODY_TYPE CloudTasksTransport Config DEFAULT_DEADLINE Delivery Ending ForgetList LOCAL_SECRET MAX_ETA Message
QueueAdmin QueueState RetryOptions Routing SQLiteFile State Task TaskOptions TaskRecord TaskStore Transport
add_dead_arguments add_health_arguments add_layer add_queue_arguments add_status_arguments add_sweep_arguments
add_watch_argument app_engine_environment as_configured attempt_fields attempt_limit await_by build_adapter call_of
callable_in check_arguments check_placement clock count_rows current current_trace declared_queues decode describe
describe_call_in describe_members encode enqueue_many failure_of fast_init finished from_environment going_on_with_trace
is_absolute is_cut_off is_envelope is_framed is_header is_logged is_path label last_line load_legacy locate_file logger
nearest new_id on_app_engine on_development_server on_google_cloud one_line parse_options parse_queue percent_encoded
printable project_of_environment read_records refuse_on_google_cloud register_describer register_observer
register_section register_sweeper register_type require_extras rerun resolve run_body run_dead run_health run_queues
run_status run_sweep sdk_failure serialize set_source shortened storable sweep to_ref to_runnable_ref traceback_of
wiping
""".split()

TESTING = """
Deferred Drained Isolation MemoryStore MemoryTransport QueuedTask configured drain forget_configuration in_memory
isolated run_one settlers
""".split()


def test_the_exports_are_these() -> None:
    assert sorted(defer_core.__all__) == sorted(NAMES)
    assert all(hasattr(defer_core, name) for name in NAMES)


def test_the_exports_of_the_spi_are_these() -> None:
    """A removal needs a new major version of defer-core; an addition, a new lower bound in the package that uses it."""
    assert sorted(spi.__all__) == sorted(SPI)
    assert len(spi.__all__) == len(set(spi.__all__))
    assert all(getattr(spi, name) is not None for name in SPI)
    with pytest.raises(AttributeError, match="has no attribute 'no_such_name'"):
        _ = spi.no_such_name


def test_the_exports_of_testing_are_these() -> None:
    assert sorted(testing.__all__) == sorted(TESTING)


def test_the_spi_loads_neither_google_nor_a_framework_nor_what_a_handler_does_not_need() -> None:
    program = (
        "import sys, defer_core; before = set(sys.modules); import defer_core.spi\n"
        "heavy = {'argparse', 'sqlite3', 'grpc', 'django', 'pytest', 'google.api_core', 'google.cloud.tasks_v2'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()\n"
        "new = {name for name in sys.modules.keys() - before if not name.startswith('defer_core.')}\n"
        "assert not new, new\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("name", ["set_source", "add_layer", "build_adapter", "resolve", "to_ref"])
def test_what_a_task_may_not_call_it_may_not_call_by_way_of_the_spi(name: str) -> None:
    with pytest.raises(CallableForbiddenError):
        from_ref(f"defer_core.spi:{name}", Config())


def test_nothing_of_google_or_django_is_imported_before_it_is_used() -> None:
    script = (
        "import sys, defer_core, defer_core.testing, defer_core.__main__\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules} & {'google', 'grpc', 'django', 'defer_local'}))"
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO", "DEFER"))}
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environ, check=True)
    # a namespace package may be made by a .pth file before anything is imported
    assert set(ran.stdout.split()) <= {"google"} and "google.cloud" not in ran.stdout
