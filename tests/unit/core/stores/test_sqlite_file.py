"""A SQLite file under all that processes do to it: forks, deletion, replacement, disks and modes that do not fit."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from defer_core.errors import ConfigError
from defer_core.stores import sqlite_opening as opening
from defer_core.stores.sqlite_file import SQLiteFile

SCHEMA = "CREATE TABLE IF NOT EXISTS notes (note TEXT);"
PROLOGUE = f"""
import ctypes, multiprocessing, os, sqlite3, subprocess, sys, threading, time
from defer_core.stores.sqlite_file import SQLiteFile
file = SQLiteFile(sys.argv[1], {SCHEMA!r})
def note(text):
    with file.writing() as connection:
        connection.execute("INSERT INTO notes VALUES (?)", (text,))
def in_thread(func, *args):
    thread = threading.Thread(target=func, args=args, daemon=True)
    thread.start()
    return thread
def come_and_go(text):
    '''A process that writes once, and as the last one to leave would take the log with it.'''
    program = "import sys\\nfrom defer_core.stores.sqlite_file import SQLiteFile\\n" \\
              "file = SQLiteFile(sys.argv[1], '')\\n" \\
              "with file.writing() as connection: connection.execute('INSERT INTO notes VALUES (?)', (sys.argv[2],))"
    subprocess.run([sys.executable, "-c", program, sys.argv[1], text], check=True)
"""


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SQLiteFile]:
    file = SQLiteFile(tmp_path / "folder" / "file", SCHEMA)
    yield file
    file.close()


def note(file: SQLiteFile, text: str) -> None:
    with file.writing() as connection:
        connection.execute("INSERT INTO notes VALUES (?)", (text,))


def notes(file: SQLiteFile) -> list[str]:
    """What is in the file, for one who has just come."""
    other = SQLiteFile(file.path, SCHEMA)
    assert other.query("PRAGMA integrity_check")[0][0] == "ok"
    found = sorted(row["note"] for row in other.query("SELECT note FROM notes"))
    other.close()
    return found


def run(file: SQLiteFile, program: str, *, leaves: bool = False) -> str:
    """Run a program in a process of its own; what it printed. A child that `leaves` its parent's connections as they
    are is warned of that by newer Pythons."""
    # newer Pythons warn of any fork beside threads, which is what some of these are about
    command = [sys.executable, "-X", "dev", "-W", "ignore::DeprecationWarning", "-c", PROLOGUE + program]
    command[5:5] = ["-W", "ignore::ResourceWarning"] if leaves else []
    command.append(str(file.path))
    done = subprocess.run(command, timeout=60, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout


# --- whoever comes and goes ---------------------------------------------------------------------------------------


def test_a_second_opening_keeps_the_locks_of_the_first(file: SQLiteFile) -> None:
    run(file, "note('a1'); in_thread(note, 'a2').join(); come_and_go('b'); note('a3'); come_and_go('c'); note('a4')")
    assert notes(file) == ["a1", "a2", "a3", "a4", "b", "c"]


def test_one_that_opens_and_closes_beside_this_one_takes_nothing_with_it(file: SQLiteFile) -> None:
    note(file, "first")
    other = SQLiteFile(file.path, SCHEMA)
    note(other, "other")
    other.close()
    run(file, "come_and_go('short')")
    note(file, "last")
    assert notes(file) == ["first", "last", "other", "short"]


def test_threads_that_make_the_file_at_the_same_moment_keep_their_locks(file: SQLiteFile) -> None:
    run(
        file,
        "start = threading.Barrier(8); end = threading.Barrier(9)\n"
        "def work(number):\n"
        "    start.wait(); note(f'first {number}'); end.wait(); end.wait(); note(f'second {number}')\n"
        "threads = [in_thread(work, number) for number in range(8)]\n"
        "end.wait(); come_and_go('between'); end.wait()\n"
        "for thread in threads: thread.join()\n",
    )
    assert len(notes(file)) == 17


def test_a_connection_that_was_interrupted_begins_anew(file: SQLiteFile) -> None:
    with pytest.raises(KeyboardInterrupt), file.writing() as connection:
        connection.execute("INSERT INTO notes VALUES ('interrupted')")
        raise KeyboardInterrupt
    note(file, "next")
    assert notes(file) == ["next"]


# --- forks --------------------------------------------------------------------------------------------------------

FORK = "pid = os.fork()\n"
UNTOLD = "pid = ctypes.CDLL(None).fork()\n"  # as a server written in C forks


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize("fork", [FORK, UNTOLD], ids=["by Python", "by C"])
@pytest.mark.parametrize("ends", ["os._exit(0)", "sys.exit(0)"])
def test_a_child_takes_its_own_locks(file: SQLiteFile, fork: str, ends: str) -> None:
    """Once the parent's are gone, nothing but the child's own locks keeps the log."""
    run(
        file,
        "note('before')\n"
        "stay = threading.Event(); there = threading.Event()\n"
        "def idle(): note('thread'); there.set(); stay.wait()\n"
        "thread = in_thread(idle); there.wait()\n"
        "reading, writing = os.pipe()\n"
        f"{fork}"
        "if pid == 0:\n"
        "    note('child'); os.write(writing, b'x')\n"
        "    come_and_go('short'); note('child again'); come_and_go('shorter'); note('child at last')\n"
        f"    {ends}\n"
        "os.read(reading, 1); file.close(); stay.set(); thread.join()\n"
        "assert os.waitpid(pid, 0)[1] == 0\n"
        "note('after')\n",
    )
    expected = ["after", "before", "child", "child again", "child at last", "short", "shorter", "thread"]
    assert notes(file) == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_fork_waits_for_the_transactions_of_other_threads(file: SQLiteFile) -> None:
    run(
        file,
        "inside = threading.Event()\n"
        "def slow():\n"
        "    with file.writing() as connection:\n"
        "        inside.set()\n"
        "        threading.Event().wait(0.2)\n"
        "        connection.execute(\"INSERT INTO notes VALUES ('slow')\")\n"
        "thread = in_thread(slow); inside.wait()\n"
        "pid = os.fork()\n"
        "note('child' if pid == 0 else 'parent')\n"
        "if pid == 0: os._exit(0)\n"
        "thread.join()\n"
        "assert os.waitpid(pid, 0)[1] == 0\n",
    )
    assert notes(file) == ["child", "parent", "slow"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_fork_gets_its_turn_beside_threads_that_never_rest(file: SQLiteFile) -> None:
    run(
        file,
        "done = threading.Event()\n"
        "def restless():\n"
        "    while not done.is_set(): note('thread')\n"
        "threads = [in_thread(restless) for _ in range(3)]\n"
        "for _ in range(2):\n"
        "    pid = os.fork()\n"
        "    if pid == 0: note('child'); os._exit(0)\n"
        "    assert os.waitpid(pid, 0)[1] == 0\n"
        "done.set()\n"
        "for thread in threads: thread.join()\n",
    )
    assert notes(file).count("child") == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_child_of_a_transaction_leaves_it_to_its_parent(file: SQLiteFile) -> None:
    told = run(
        file,
        "pid = -1\n"
        "try:\n"
        "    with file.writing() as connection:\n"
        "        connection.execute(\"INSERT INTO notes VALUES ('parent')\")\n"
        "        pid = os.fork()\n"
        "        if pid: assert os.waitpid(pid, 0)[1] == 0\n"
        "except sqlite3.OperationalError as error:\n"
        "    print('the end:', error)\n"
        "if pid == 0:\n"
        "    try: note('child')\n"
        "    except sqlite3.OperationalError as error: print('later:', error)\n"
        "    sys.exit(0)\n",
        leaves=True,
    )
    assert told.count(f"{file.path} was in use when this process was forked") == 2
    assert notes(file) == ["parent"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_many_forks_beside_busy_threads_lose_nothing(file: SQLiteFile) -> None:
    run(
        file,
        "done = threading.Event()\n"
        "def busy(name):\n"
        "    number = 0\n"
        "    while not done.is_set() or number < 20:\n"
        "        note(f'{name} {number}'); number += 1; time.sleep(0.005)\n"
        "    written.append(number)\n"
        "written = []; context = multiprocessing.get_context('fork')\n"
        "threads = [in_thread(busy, f'thread {number}') for number in range(3)]\n"
        "for number in range(12):\n"
        "    child = context.Process(target=note, args=(f'child {number}',)); child.start()\n"
        "    come_and_go(f'short {number}'); child.join(); assert child.exitcode == 0\n"
        "done.set()\n"
        "for thread in threads: thread.join()\n"
        "with file.reading() as connection:\n"
        "    count = connection.execute('SELECT count(*) FROM notes').fetchone()[0]\n"
        "assert count == sum(written) + 24, (count, written)\n",
        leaves=True,
    )
    assert sum(text.startswith("child") for text in notes(file)) == 12


# --- a file that goes, or becomes another one ---------------------------------------------------------------------


def delete_all(path: Path) -> None:
    shutil.rmtree(path.parent)


def delete_it_alone(path: Path) -> None:
    path.unlink()


def move_away(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def replace(path: Path) -> None:
    other = SQLiteFile(path.with_name("backup"), SCHEMA)
    note(other, "from the backup")
    other.close()
    path.with_name("backup").replace(path)


@pytest.mark.parametrize("lose", [delete_all, delete_it_alone, move_away, replace])
def test_a_file_that_is_gone_is_noticed_and_what_follows_is_in_its_successor(
    file: SQLiteFile, lose: object, caplog: pytest.LogCaptureFixture
) -> None:
    note(file, "before")
    lose(file.path)  # type: ignore[operator]
    note(file, "after")
    note(file, "later")
    assert notes(file) == ["after", *(["from the backup"] if lose is replace else []), "later"]
    [record] = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert str(file.path) in record.getMessage() and file.losses == 1


@pytest.mark.parametrize("lose", [delete_it_alone, move_away])
def test_whoever_makes_the_file_anew_leaves_the_log_of_the_old_one_alone(file: SQLiteFile, lose: object) -> None:
    note(file, "before")
    lose(file.path)  # type: ignore[operator]
    run(file, "note('new')")
    note(file, "after")
    assert notes(file) == ["after", "new"]


def test_nothing_is_acknowledged_into_a_file_that_goes_meanwhile(file: SQLiteFile) -> None:
    note(file, "before")
    with (
        pytest.raises(sqlite3.OperationalError, match="was deleted or replaced while it was written to"),
        file.writing() as connection,
    ):
        connection.execute("INSERT INTO notes VALUES ('lost')")
        delete_all(file.path)
    note(file, "after")
    assert notes(file) == ["after"]


def test_a_log_that_is_deleted_under_a_process_is_noticed(file: SQLiteFile) -> None:
    """As it is where other code of this process opened and closed the file, and with that let go of SQLite's locks."""
    note(file, "one")
    file.path.read_bytes()
    run(file, "come_and_go('two')")
    note(file, "three")
    file.path.with_name("file-wal").unlink()
    note(file, "four")
    assert notes(file) == ["four", "one", "three", "two"]


def test_all_threads_move_on_and_the_loss_is_told_once(file: SQLiteFile, caplog: pytest.LogCaptureFixture) -> None:
    gone, barrier = threading.Event(), threading.Barrier(5)

    def work(number: int) -> None:
        note(file, f"before {number}")
        barrier.wait(30)
        assert gone.wait(30)
        note(file, f"after {number}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    barrier.wait(30)
    delete_all(file.path)
    gone.set()
    for thread in threads:
        thread.join(30)
    assert notes(file) == [f"after {number}" for number in range(4)]
    assert caplog.text.count("was deleted or replaced") == 1


def test_a_thread_whose_look_is_stale_tells_of_no_second_loss(
    file: SQLiteFile, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    had, gone, looked, moved_on = (threading.Event() for _ in range(4))
    look = opening.identity

    def slow_look(path: str) -> opening.Identity:
        found = look(path)
        if gone.is_set() and threading.current_thread() is slow and not looked.is_set():
            looked.set()
            assert moved_on.wait(30)
        return found

    def work() -> None:
        note(file, "before")
        had.set()
        assert gone.wait(30)
        note(file, "slow")

    monkeypatch.setattr(opening, "identity", slow_look)
    slow = threading.Thread(target=work)
    note(file, "before")
    slow.start()
    assert had.wait(30)
    delete_all(file.path)
    gone.set()
    assert looked.wait(30)
    note(file, "fast")
    moved_on.set()
    slow.join(30)
    assert notes(file) == ["fast", "slow"]
    assert caplog.text.count("was deleted or replaced") == file.losses == 1


# --- files that cannot be used, or that others can read -----------------------------------------------------------


def a_folder(path: Path) -> None:
    path.mkdir(parents=True)


def a_pipe(path: Path) -> None:
    path.parent.mkdir()
    os.mkfifo(path)


def no_folder_above(path: Path) -> None:
    path.parent.write_text("")


def no_database(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("milk, bread, butter\n" * 100)


@pytest.mark.parametrize("spoil", [a_folder, a_pipe, no_folder_above, no_database])
def test_what_is_no_file_is_refused_at_once_by_its_name_and_without_noise(file: SQLiteFile, spoil: object) -> None:
    spoil(file.path)  # type: ignore[operator]
    with pytest.raises(ConfigError, match="folder/file cannot be opened"):
        note(file, "never")
    assert "cannot be opened" in run(file, "try: note('never')\nexcept Exception as error: print(error)\n")


ANOTHER_USER = 65534
FULL = """
import resource, signal, time
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
began = time.monotonic()
try: note('never' * 4000)
except Exception as error: print(type(error).__name__, error)
assert time.monotonic() - began < 20
"""


@pytest.mark.parametrize("size", [0, 2048, 4096, 30000])
def test_a_full_disk_is_told_at_once(file: SQLiteFile, size: int) -> None:
    told = run(file, FULL.format(size=size))
    assert told.startswith("ConfigError The file") and str(file.path) in told


def test_a_disk_that_is_full_later_takes_nothing_and_spoils_nothing(file: SQLiteFile) -> None:
    note(file, "before")
    assert run(file, FULL.format(size=16384)).startswith(
        "OperationalError d"
    )  # "database or disk is full", "disk I/O error"
    assert notes(file) == ["before"]


@pytest.mark.parametrize("what", ["the file", "its folder"])
def test_what_may_not_be_written_is_refused_at_once(file: SQLiteFile, what: str, tmp_path: Path) -> None:
    note(file, "before")
    file.close()
    path = file.path if what == "the file" else file.path.parent
    path.chmod(0o400 if what == "the file" else 0o500)
    become = ""
    if os.geteuid() == 0:  # who may write everything: let another user try
        for each in (file.path, file.path.parent):
            os.chown(each, ANOTHER_USER, ANOTHER_USER)
        for parent in tmp_path.parents:
            if parent.stat().st_uid == 0 and len(parent.parts) > 2:
                parent.chmod(parent.stat().st_mode | 0o011)
        tmp_path.chmod(0o711)
        become = f"os.setuid({ANOTHER_USER})\n"  # only now: that user may not read the interpreter's own folder
    told = run(file, f"{become}try: note('never')\nexcept Exception as error: print(type(error).__name__, error)\n")
    file.path.parent.chmod(0o700)
    assert told.startswith("ConfigError The file") and str(file.path) in told


def test_what_others_could_read_is_closed_and_told(file: SQLiteFile, caplog: pytest.LogCaptureFixture) -> None:
    note(file, "secret")
    for path in file.path.parent.iterdir():
        path.chmod(0o644)
    other = SQLiteFile(file.path, SCHEMA)
    note(other, "more")
    assert {stat.S_IMODE(path.stat().st_mode) for path in file.path.parent.iterdir()} == {0o600}
    assert f"{file.path} could be read by others (mode 644)" in caplog.text
    other.close()


def test_the_default_folder_is_not_in_version_control(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    for folder in (".defer", "data"):
        file = SQLiteFile(tmp_path / folder / "queue.sqlite3", SCHEMA)
        note(file, "secret")
        file.close()
    status = subprocess.run(["git", "status", "--short"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert status.stdout == "?? data/\n", "a folder that is named is not ours to hide"
