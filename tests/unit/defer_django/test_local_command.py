"""`manage.py defer_local`."""

from __future__ import annotations

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
