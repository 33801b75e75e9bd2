"""Every command and every block of code in the documents runs as it is printed, in a fresh folder."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tomllib
from contextlib import suppress
from pathlib import Path

import pytest
import services
from outside.blocks import ROOT, Block, printed
from outside.ways import AS_TYPED, NOT_RUN, PYTEST, PYTHON, SCRIPTS, SETTINGS, SHELL

TESTS = ROOT / "tests"
BLOCKS = printed()
MANAGE = """
import sys
from django.core.management import execute_from_command_line
import os
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "outside.supposed.shop_settings")
execute_from_command_line(sys.argv)
"""
READY = """
says() { until grep -q "$1" said; do sleep 0.1; done; }
ready() { until (exec 3<> /dev/tcp/127.0.0.1/$1) 2> /dev/null; do sleep 0.1; done; }
"""


def beginning_with(keys: object) -> list[object]:
    """The blocks that the entries of a table stand for; more or fewer than one for an entry is an error of its test."""
    return [pytest.param(key, id=key) for key in sorted(keys)]  # type: ignore[call-overload]


def block_of(key: str) -> Block:
    [found] = [block for block in BLOCKS if block.key.startswith(key)]
    return found


def run(folder: Path, *command: str, seconds: float = 120) -> str:
    """What a command prints, which must succeed; it and what it has started end then."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DEFER_", "DJANGO_", "GOOGLE_"))}
    path = os.pathsep.join([str(folder / "bin"), str(Path(sys.executable).parent), kept["PATH"]])
    environ = {**kept, "PATH": path, "PYTHONPATH": str(TESTS), "PYTHONUNBUFFERED": "1", "ROOT": str(ROOT)}
    with (folder / "said").open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = -1
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    said = (folder / "said").read_text(errors="replace")
    assert status == 0, said
    return said


def with_free_ports(text: str) -> str:
    """The text with other ports: those that are printed may be in use. The one after an API's is its issuer's."""
    api = services.free_port()
    ports = {
        "8123": str(api),
        "8124": str(api + 1),
        "8000": str(services.free_port()),
        "8080": str(services.free_port()),
    }
    return re.sub(r"\b(8123|8124|8000|8080)\b", lambda found: ports[found[0]], text)


def test_every_block_is_run_in_one_way_or_has_a_reason_not_to() -> None:
    entries = [*PYTHON, *PYTEST, *SETTINGS, *SHELL, *SCRIPTS, *NOT_RUN]
    ways = {block.key: [entry for entry in entries if block.key.startswith(entry)] for block in BLOCKS}
    assert {key: found for key, found in ways.items() if len(found) != 1} == {}, "say in ways.py how these are run"
    assert sorted(entries) == sorted(found[0] for found in ways.values()), "ways.py has entries without a block"


@pytest.mark.parametrize("key", beginning_with(PYTHON))
def test_code_runs(tmp_path: Path, key: str) -> None:
    before, after = PYTHON[key]
    source = "\n".join([before, block_of(key).text, after])
    (tmp_path / "printed.py").write_text(with_free_ports(source))
    run(tmp_path, sys.executable, "-c", "import printed")


@pytest.mark.parametrize("key", beginning_with(PYTEST))
def test_tests_pass(tmp_path: Path, key: str) -> None:
    (tmp_path / "test_printed.py").write_text(f"{PYTEST[key]}\n{block_of(key).text}\n")
    django = "--ds=outside.supposed.shop_settings" if "django" in PYTEST[key] else "-pno:django"
    said = run(tmp_path, sys.executable, "-m", "pytest", django, "test_printed.py")
    assert re.search(r"=== \d+ passed in", said), said


@pytest.mark.parametrize("key", beginning_with(SETTINGS))
def test_settings_are_taken(tmp_path: Path, key: str) -> None:
    text = re.sub(r"^(\w+) = \[\.\.\.,", r"\1 = [*\1,", block_of(key).text, flags=re.MULTILINE)
    before = "from outside.supposed.shop_settings import *\nfrom django.urls import include, path\n"
    (tmp_path / "printed.py").write_text(f"{before}\n{text}\nINSTALLED_APPS = list(dict.fromkeys(INSTALLED_APPS))\n")
    run(tmp_path, sys.executable, "-m", "django", "check", "--settings", "printed", "--pythonpath", ".")


@pytest.fixture(scope="session")
def pip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A pip that has nothing but the packages of this tree."""
    folder = tmp_path_factory.mktemp("wheels")
    for package in sorted((ROOT / "packages").iterdir()):
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "dist")]
        subprocess.run(build, cwd=package, check=True, capture_output=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    settings = "PIP_NO_INDEX=1 PIP_NO_DEPS=1 PIP_FORCE_REINSTALL=1 PIP_DISABLE_PIP_VERSION_CHECK=1"
    return f'#!/bin/sh\nexec env {settings} PIP_FIND_LINKS="{folder}/dist" "{folder}/venv/bin/python" -m pip "$@"\n'


def commands(text: str) -> str:
    """A block as a script: what serves goes on in the background until it is ready."""
    for shown, typed in AS_TYPED.items():
        text = text.replace(shown, typed)
    lines = []
    for line in text.splitlines():
        serves = re.match(r"(defer-local --|gunicorn|python manage.py migrate && python -m waitress)", line)
        port = re.search(r"--grpc (\d+)|--(?:bind |listen=)127.0.0.1:(\d+)", line)
        lines.append(f"{line} &" if serves else line)
        if serves and port:
            lines.append(f"ready {port[1] or port[2]}")
    return "\n".join(lines)


@pytest.mark.parametrize("key", beginning_with(SHELL))
def test_commands_run(tmp_path: Path, key: str, pip: str) -> None:
    before, expected, after = SHELL[key]
    (tmp_path / "manage.py").write_text(MANAGE)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "pip").write_text(pip)
    (tmp_path / "bin" / "pip").chmod(0o755)
    script = "\n".join(["set -e", READY, before, commands(block_of(key).text), after])
    said = run(tmp_path, "bash", "-c", with_free_ports(script))
    assert expected in said
    assert "does not provide the extra" not in said
    assert "Traceback" not in said or expected == "Traceback"


@pytest.mark.parametrize("key", beginning_with(SCRIPTS))
def test_scripts_are_there(key: str) -> None:
    known = tomllib.loads((ROOT / "hatch.toml").read_text())["envs"]["default"]["scripts"]
    named = re.findall(r"hatch run (\w+)", block_of(key).text)
    assert named
    assert [each for each in named if each not in {*known, "python"}] == []
