"""`manage.py defer_local`."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
from django.core.management import ManagementUtility


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exited:
        ManagementUtility(["manage.py", "defer_local", *arguments]).execute()
    return int(exited.value.code or 0)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["--url", "http://127.0.0.1:8000"]),  # where runserver is
        (["--file", "q.sqlite3"], ["--url", "http://127.0.0.1:8000", "--file", "q.sqlite3"]),
        (["--url=http://127.0.0.1:9000"], ["--url=http://127.0.0.1:9000"]),
        (["--app", "site.wsgi"], ["--app", "site.wsgi"]),
        (["--grpc", "9022"], ["--grpc", "9022"]),
    ],
)
def test_its_arguments_are_those_of_defer_local(arguments: list[str], expected: list[str]) -> None:
    with mock.patch("defer_local.__main__.main", return_value=3) as main:
        assert run(*arguments) == 3
    main.assert_called_once_with(expected)


def test_without_the_package_the_remedy_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with mock.patch.dict("sys.modules", {"defer_local.__main__": None}):
        assert run() == 1
    assert "Install defer-local" in capsys.readouterr().err


@pytest.mark.defer_real
def test_the_file_is_that_of_the_settings(settings: Any) -> None:
    settings.DEFER = {"TRANSPORT": "local", "TRANSPORT_OPTIONS": {"file": "/site/queue.sqlite3"}}
    with mock.patch("defer_local.__main__.main", return_value=0) as main:
        run("list")
        run("list", "--file=other.sqlite3")
    assert main.call_args_list[0].args[0][-3:] == ["list", "--file", "/site/queue.sqlite3"]
    assert main.call_args_list[1].args[0][-2:] == ["list", "--file=other.sqlite3"]
