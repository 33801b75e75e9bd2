"""Every module of a package has tests of its own, or is listed with the file that tests it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import defer_core
import defer_iteration

TESTS = Path(__file__).parents[1]
PACKAGES = {"core": defer_core, "iteration": defer_iteration}
"""The packages whose tests lie like their modules, by the folder of the tests."""
ELSEWHERE = {
    "core": {
        "delivery": "unit/core/run/test_execute.py",
        "errors": "unit/gae_handler/test_hostile_text.py",
        "record": "contract/test_task_store.py",
        "spi": "unit/core/test_exports.py",
        "task": "contract/test_task_store.py",
        "commands/dead": "unit/core/test_commands.py",
        "commands/health": "unit/core/upkeep/test_health.py",
        "commands/queues": "integration/cloud_tasks/test_queues.py",
        "commands/sweep": "unit/core/test_commands.py",
        "config/policy": "unit/gae_handler/test_allow_list.py",
        "config/queues": "integration/cloud_tasks/test_queues.py",
        "run/decode": "unit/core/run/test_execute.py",
        "run/unread": "unit/core/run/test_execute.py",
        "stores/base": "contract/test_task_store.py",
        "stores/memory": "contract/test_task_store.py",
        "stores/sqlite_opening": "unit/core/stores/test_sqlite_file.py",
        "stores/appengine/context": "integration/appengine/test_appengine_queue.py",
        "stores/appengine/entities": "contract/test_task_store.py",
        "stores/appengine/store": "contract/test_task_store.py",
        "stores/ndb/context": "integration/ndb/test_ndb_contexts.py",
        "stores/ndb/entities": "integration/ndb/test_ndb_transactions.py",
        "stores/ndb/store": "integration/ndb/test_ndb_transactions.py",
        "testing/contracts": "contract/test_task_store.py",
        "telemetry/attributes": "unit/core/telemetry/test_spans.py",
        "upkeep/sections": "unit/core/commands/test_snapshot.py",
        "transports/appengine": "integration/appengine/test_appengine_queue.py",
        "transports/base": "contract/test_transport.py",
        "transports/memory": "contract/test_transport.py",
        "transports/cloud/batch": "integration/cloud_tasks/test_cloud_requests.py",
        "transports/cloud/channel": "integration/cloud_tasks/test_cloud_channel.py",
        "transports/cloud/errors": "integration/cloud_tasks/test_cloud_requests.py",
        "transports/cloud/message": "integration/cloud_tasks/test_cloud_requests.py",
        "transports/cloud/queues": "integration/cloud_tasks/test_queues.py",
        "transports/cloud/transport": "integration/cloud_tasks/test_cloud_requests.py",
        "wire/decoded": "unit/core/run/test_execute.py",
    },
    "iteration": {
        "apps": "unit/iteration/protocol/test_sweeper.py",
        "models": "contract/test_iteration_store.py",
        "errors": "unit/iteration/protocol/test_deadline.py",
        "model/iteration": "contract/test_iteration_store.py",
        "model/transitions": "contract/test_iteration_store.py",
        "protocol/fan_out": "integration/iteration/test_iteration_on_datastore.py",
        "protocol/job": "unit/iteration/test_api.py",
        "rows/base": "contract/test_rows.py",
        "rows/compiled": "unit/iteration/rows/test_queryset.py",
        "rows/datastore": "integration/iteration/test_iteration_on_datastore.py",
        "rows/expressions": "unit/iteration/rows/test_order_field.py",
        "rows/memory": "unit/iteration/stores/test_memory.py",
        "rows/ordering": "unit/iteration/rows/test_every_row.py",
        "rows/stored": "unit/iteration/rows/test_every_row.py",
        "rows/walk": "unit/iteration/rows/test_marks.py",
        "stores/aliases": "unit/iteration/test_api.py",
        "stores/base": "contract/test_iteration_store.py",
        "stores/columns": "contract/test_iteration_store.py",
        "stores/datastore": "integration/iteration/test_iteration_on_datastore.py",
        "stores/django": "integration/iteration/test_iteration_races.py",
        "stores/locking": "contract/test_iteration_store.py",
        "stores/retention": "unit/iteration/test_names.py",
        "stores/routing": "unit/iteration/test_without_django.py",
    },
}
"""The modules whose tests are not beside those of the others, and where they are."""


def modules() -> Iterator[tuple[str, str]]:
    """Yield the modules with a function in them: the folder of the package, and the path in it."""
    for folder, package in PACKAGES.items():
        home = Path(package.__file__ or "").parent
        for each in sorted(home.rglob("*.py")):
            if each.name != "__init__.py" and has_functions(each):
                yield folder, str(each.relative_to(home).with_suffix(""))


def has_functions(path: Path) -> bool:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return any(isinstance(node, kinds) for node in ast.walk(ast.parse(path.read_text())))


def twin(folder: str, module: str) -> Path:
    path = Path(module.replace("management/commands/", "management/"))
    return TESTS / "unit" / folder / path.with_name(f"test_{path.name.strip('_')}.py")


@pytest.mark.parametrize(("folder", "module"), list(modules()))
def test_every_module_has_a_twin_or_is_listed(folder: str, module: str) -> None:
    own, listed = twin(folder, module), ELSEWHERE[folder].get(module)
    if listed is not None:
        assert not own.exists(), f"{module} has tests of its own: take it from the list"
        assert (TESTS / listed).exists(), f"there is no {listed}"
    else:
        assert own.exists(), f"{module}.py has no {own.relative_to(TESTS)}, and is not listed"


def test_the_list_has_no_module_that_is_gone() -> None:
    assert {(folder, module) for folder, listed in ELSEWHERE.items() for module in listed} <= set(modules())
