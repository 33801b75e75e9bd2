"""What the SQLite store promises beyond the contract of stores: its file, its savepoints, other processes, forks."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from defer_core.errors import ConfigError
from defer_core.record import State, TaskRecord, new_id
from defer_core.stores.sqlite import SQLiteTaskStore
from defer_core.stores.sqlite_file import SQLiteFile

LEASE_ALL = """
import sys, time
from defer_core.stores.sqlite import SQLiteTaskStore
store = SQLiteTaskStore(file=sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
while leased := store.lease_due(now=time.time(), limit=3, seconds=60):
    for record in leased:
        print(record.id, flush=True)
store.close()
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteTaskStore]:
    store = SQLiteTaskStore(file=tmp_path / "folder" / "store.sqlite3")
    yield store
    store.close()


def a_record(**fields: object) -> TaskRecord:
    return TaskRecord(**{"id": new_id(), "envelope": b"e", **fields})  # type: ignore[arg-type]


def test_nothing_is_made_before_it_is_used(store: SQLiteTaskStore) -> None:
    assert not store.file.path.parent.exists()
    store.put([a_record()])
    assert store.file.path.exists()


def test_only_its_owner_can_read_it(store: SQLiteTaskStore) -> None:
    store.put([a_record()])
    modes = {stat.S_IMODE(path.stat().st_mode) for path in store.file.path.parent.iterdir()}
    assert modes == {0o600}


def test_it_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEFER_STORE_FILE", str(tmp_path / "there"))
    assert SQLiteTaskStore().file.path == tmp_path / "there"
    monkeypatch.delenv("DEFER_STORE_FILE")
    monkeypatch.chdir(tmp_path)
    assert SQLiteTaskStore().file.path == tmp_path / ".defer" / "store.sqlite3"


def test_a_place_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be opened"):
        SQLiteTaskStore(file=tmp_path / "file" / "store.sqlite3").count(State.PENDING)


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("milk, bread, butter\n" * 100)
    with pytest.raises(ConfigError, match=r"notes\.txt cannot be opened: file is not a database. Give another"):
        SQLiteTaskStore(file=tmp_path / "notes.txt").count(State.DEAD)


def test_an_error_of_sqlite_says_which_file_it_is_about(store: SQLiteTaskStore) -> None:
    store.file.connection().execute("PRAGMA query_only = ON")
    with pytest.raises(sqlite3.OperationalError, match=r"readonly database \(.*/folder/store\.sqlite3\)"):
        store.put([a_record()])
    store.file.connection().execute("PRAGMA query_only = OFF")
    with pytest.raises(sqlite3.OperationalError) as caught, store.transaction():
        raise sqlite3.OperationalError("of another database")
    assert str(caught.value) == "of another database"


def test_a_savepoint_takes_its_records_and_hooks_with_it(store: SQLiteTaskStore) -> None:
    called: list[str] = []
    outer, inner, kept = a_record(), a_record(), a_record()
    with store.transaction():
        store.put([outer])
        store.on_commit(lambda: called.append("outer"))
        with pytest.raises(RuntimeError), store.transaction():
            store.put([inner])
            store.on_commit(lambda: called.append("inner"))
            raise RuntimeError
        with store.transaction():
            store.put([kept])
            store.on_commit(lambda: called.append("kept"))
        assert called == []
    assert called == ["outer", "kept"]
    assert (store.get(outer.id), store.get(inner.id), store.get(kept.id)) == (outer, None, kept)


def test_a_put_that_fails_leaves_nothing_of_itself(store: SQLiteTaskStore) -> None:
    there, new = a_record(), a_record()
    store.put([there])
    with pytest.raises(Exception, match="UNIQUE"), store.transaction():
        try:
            store.put([new, there])
        finally:
            assert store.get(new.id) is None, "also inside the transaction, which may go on"
    assert store.get(new.id) is None


def test_a_transaction_is_its_threads_own(store: SQLiteTaskStore) -> None:
    record, seen = a_record(), []

    def look() -> None:
        seen.append((store.in_transaction(), store.get(record.id)))

    with store.transaction():
        store.put([record])
        thread = threading.Thread(target=look)
        thread.start()
        thread.join(30)
    assert seen == [(False, None)]


def test_text_that_is_no_utf8_is_kept_legible(store: SQLiteTaskStore) -> None:
    record = a_record(last_error="caf\udce9")
    store.put([record])
    found = store.get(record.id)
    assert found is not None
    assert found.last_error == r"caf\udce9"


def test_several_processes_never_lease_one_record(store: SQLiteTaskStore) -> None:
    records = [a_record(due=time.time() - 1) for _ in range(90)]
    store.put(records)
    command = [sys.executable, "-c", LEASE_ALL, str(store.file.path)]
    workers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ})
        for _ in range(3)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    answers = []
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    for worker in workers:
        answers.extend(worker.communicate(timeout=60)[0].split())
        assert worker.returncode == 0
    assert sorted(answers) == sorted(record.id for record in records)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_child_has_connections_of_its_own(tmp_path: Path) -> None:
    file = SQLiteFile(tmp_path / "file", "CREATE TABLE IF NOT EXISTS numbers (n INTEGER);")
    parents = file.connection()
    program = (
        "import os, sys\n"
        "from defer_core.stores.sqlite_file import SQLiteFile\n"
        "file = SQLiteFile(sys.argv[1], 'CREATE TABLE IF NOT EXISTS numbers (n INTEGER);')\n"
        "before = file.connection()\n"
        "pid = os.fork()\n"
        "assert file.connection() is not before\n"
        "with file.writing() as connection:\n"
        "    connection.execute('INSERT INTO numbers VALUES (?)', (pid,))\n"
        "if pid:\n"
        "    assert os.waitpid(pid, 0)[1] == 0\n"
        "file.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(file.path)], timeout=60, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert parents.execute("SELECT count(*) FROM numbers").fetchone()[0] == 2
    assert parents.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    file.close()
