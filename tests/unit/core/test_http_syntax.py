"""What HTTP can carry of a task."""

from __future__ import annotations

import pytest

from defer_core.http_syntax import is_header, is_url


@pytest.mark.parametrize(
    "text",
    ["/", "/run?a=b&c=%20#d", "//twice", "http://127.0.0.1:8000", "https://shop.example/run", "http://[::1]:8000/run"],
)
def test_urls(text: str) -> None:
    assert is_url(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "run",
        "ftp://x/",
        "http://",
        "http:///run",
        "http://:80/",
        "http://x:0/",
        "http://x:70000/",
        "/a b",
        "/a\n",
        "/caf\xe9",
        "http://[x/",
    ],
)
def test_what_is_no_url(text: str) -> None:
    assert not is_url(text)


@pytest.mark.parametrize(("name", "value"), [("A", ""), ("X-A_b", "a b\t\xe9"), ("x.y", "~")])
def test_headers(name: str, value: str) -> None:
    assert is_header(name, value)


@pytest.mark.parametrize(
    ("name", "value"), [("", "x"), ("A b", "x"), ("A:", "x"), ("A\n", "x"), ("A", "x\n"), ("A", "\0"), ("A", "\u0416")]
)
def test_what_is_no_header(name: str, value: str) -> None:
    assert not is_header(name, value)
