"""The forms in which the site answers a task that has run; a task's header X-Form asks for one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from outside.site import note


@dataclass(frozen=True, kw_only=True)
class Form:
    """One form of an answer."""

    parts: tuple[bytes, ...] = (b"do", b"ne")
    """Its body."""
    status: int = 200
    """Its status."""
    has_length: bool = False
    """Whether it says how long it is; without, the server finds a way of its own to end it."""
    pause: float = 0.0
    """Seconds between two parts."""
    hints: bool = False
    """Whether early hints come before it, where the server can send them."""
    reads: bool = True
    """Whether the body of the request is read. Where it is not, the task is not run, but its number noted."""

    @property
    def headers(self) -> list[tuple[str, str]]:
        length = [("Content-Length", str(sum(map(len, self.parts))))] if self.has_length else []
        return [("Content-Type", "text/plain"), *length]

    def body(self) -> Iterator[bytes]:
        for part in self.parts:
            time.sleep(self.pause)
            yield part


FORMS = {
    "a-length": Form(has_length=True),
    "no-length": Form(),
    "slow": Form(pause=0.1),
    "large": Form(parts=(bytes(100_000),) * 40, has_length=True),
    "large-no-length": Form(parts=(bytes(100_000),) * 40),
    "empty": Form(parts=(), has_length=True),
    "empty-no-length": Form(parts=()),
    "no-content": Form(parts=(), status=204),
    "created": Form(status=201, has_length=True),
    "early-hints": Form(hints=True, has_length=True),
    "early-hints-no-length": Form(hints=True),
    "unread": Form(reads=False, has_length=True),
    "unread-no-length": Form(reads=False),
}


def in_forms(app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """A WSGI application that gives the answers of `app` the form that the request asks for."""

    def formed(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        form = FORMS.get(environ.get("HTTP_X_FORM", ""))
        if form is None:
            return app(environ, start_response)
        if form.hints and "wsgi.early_hints" in environ:
            environ["wsgi.early_hints"]([("Link", "</style.css>; rel=preload; as=style")])
        if not form.reads:
            note(int(environ["HTTP_X_NUMBER"]))
        else:
            said: list[str] = []
            answer = b"".join(app(environ, lambda status, headers: said.append(status)))
            if not said[0].startswith("200"):
                start_response(said[0], [("Content-Length", str(len(answer)))])
                return [answer]
        start_response(f"{form.status} Fine", form.headers)
        return form.body()

    return formed


def django_forms(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The same, as middleware of Django."""
    from django.http import HttpResponse, StreamingHttpResponse

    def formed(request: Any) -> Any:
        form = FORMS.get(request.headers.get("X-Form", ""))
        if form is None:
            return get_response(request)
        if not form.reads:
            note(int(request.headers["X-Number"]))
        elif (answer := get_response(request)).status_code != 200:
            return answer
        if form.has_length or not form.parts:
            return HttpResponse(b"".join(form.parts), status=form.status, headers=dict(form.headers))
        return StreamingHttpResponse(form.body(), status=form.status, headers=dict(form.headers))

    return formed
