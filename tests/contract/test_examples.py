"""The adapters that docs/adapters.md prints keep what every adapter promises."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from defer_core import defer
from defer_core.spi import TaskStore, Transport
from defer_core.testing import configured
from defer_core.testing.contracts import Queued, TaskStoreContract, TransportContract

ROOT = Path(__file__).parents[2]
ADAPTERS = ROOT / "examples" / "adapters"
RAN: list[str] = []


@pytest.fixture(autouse=True)
def _examples(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(ADAPTERS)
    yield
    for name in ("file_store", "folder_transport"):
        sys.modules.pop(name, None)


class TestFileStore(TaskStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> TaskStore:
        from file_store import FileStore

        return FileStore(file=tmp_path / "tasks")


class TestFolderTransport(TransportContract):
    @pytest.fixture
    def transport(self, tmp_path: Path) -> Transport:
        from folder_transport import FolderTransport

        return FolderTransport(folder=tmp_path)

    @pytest.fixture
    def queued(self, tmp_path: Path) -> Queued:
        return lambda: [(task.parent.name, task.name, task.read_bytes()) for task in tmp_path.glob("*/*")]


def test_the_page_prints_the_files() -> None:
    page = (ROOT / "docs" / "adapters.md").read_text()
    for file in ("file_store.py", "folder_transport.py"):
        assert f"```python\n{(ADAPTERS / file).read_text()}```" in page, file


def ship(order: str) -> None:
    RAN.append(order)
    if len(RAN) == 1:
        raise ValueError("again")


@pytest.mark.defer_real
def test_a_task_goes_through_both(tmp_path: Path) -> None:
    from folder_transport import run_due

    settings = {
        "transport": "folder_transport:FolderTransport",
        "transport_options": {"folder": tmp_path / "queues"},
        "store": "file_store:FileStore",
        "store_options": {"file": tmp_path / "tasks"},
    }
    RAN.clear()
    with configured(**settings):
        defer(ship, "first")
        defer(ship, "later", _countdown=3600)
        run_due(tmp_path / "queues")
        run_due(tmp_path / "queues")
        run_due(tmp_path / "queues")
    assert RAN == ["first", "first"]
