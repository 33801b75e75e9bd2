"""Vendoring: the copies run a plain WSGI service with nothing installed beside them."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from unit.gae_handler.handled import body_of

from defer_core import defer
from defer_core.testing import in_memory
from defer_gae_handler.__main__ import main

SERVICE = """
import io, json, os, sys
from importlib import metadata
lib, app, body = sys.argv[1], sys.argv[2], bytes.fromhex(sys.argv[3])
sys.path[:0] = [lib, app]
os.environ["GAE_ENV"] = "standard"
import msgpack, msgpack.fallback, defer_core, defer_gae_handler, vendored_service
from defer_gae_handler.wsgi import application
said = []
environ = {
    "REQUEST_METHOD": "POST", "PATH_INFO": "/_ah/queue/deferred", "REMOTE_ADDR": "127.0.0.1",
    "HTTP_X_APPENGINE_TASKNAME": "t", "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body),
}
list(application(environ, lambda status, headers: said.append(status)))
print(json.dumps({
    "status": said, "ran": vendored_service.calls, "installed": [each.name for each in metadata.distributions()],
    "from": sorted({module.__file__.startswith(lib) for module in (msgpack, defer_core, defer_gae_handler)}),
    "pure": msgpack.Packer is msgpack.fallback.Packer,
    "foreign": sorted(set(sys.modules) & {"django", "google", "jwt", "flask"}),
}))
"""


def test_a_vendored_service_needs_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lib = tmp_path / "lib"
    assert main(["vendor", str(lib)]) == 0
    assert sorted(each.name for each in lib.iterdir()) == ["defer_core", "defer_gae_handler", "msgpack"]
    assert not [each for each in lib.rglob("*") if each.suffix in (".so", ".pyc") or each.name.endswith("dist-info")]
    app = tmp_path / "app"
    app.mkdir()
    (app / "vendored_service.py").write_text("calls = []\ndef note(*args):\n    calls.append(args)\n")
    monkeypatch.syspath_prepend(app)
    with in_memory() as queue:
        defer(import_module("vendored_service").note, 1, "é")
        body = body_of(queue)
    # -I and -S: no environment, no site-packages, no .pth files, no metadata
    command = [sys.executable, "-I", "-S", "-c", SERVICE, str(lib), str(app), body.hex()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "status": ["200 OK"],
        "ran": [[1, "é"]],
        "installed": [],
        "from": [True],
        "pure": True,
        "foreign": [],
    }


def test_it_replaces_an_older_copy_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "defer_core").mkdir()
    (tmp_path / "defer_core" / "__init__.py").touch()
    (tmp_path / "defer_core" / "gone.py").touch()
    (tmp_path / "mine.py").touch()
    assert main(["vendor", str(tmp_path)]) == 0
    assert not (tmp_path / "defer_core" / "gone.py").exists()
    assert (tmp_path / "mine.py").exists()
    assert "copied" in capsys.readouterr().out


def test_what_is_no_copy_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "msgpack").mkdir()
    (tmp_path / "msgpack" / "photos.txt").touch()
    assert main(["vendor", str(tmp_path)]) == 1
    assert (tmp_path / "msgpack" / "photos.txt").exists() and not (tmp_path / "defer_core").exists()
    (tmp_path / "file").touch()
    assert main(["vendor", str(tmp_path / "file")]) == 1
    import defer_core

    assert main(["vendor", str(Path(defer_core.__file__).parents[1])]) == 1
    assert "is what would be copied" in capsys.readouterr().err
