"""Serve the keys of the local OIDC tokens as OpenID Connect does, over HTTP on a port of this machine."""

from __future__ import annotations

import json
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from defer_core.errors import ConfigError

from ..queue import DurableQueue
from .tokens import publish

LIFETIME = 300
"""Seconds for which a client may cache the keys."""


class Issuer:
    """Serves the keys of a queue's tokens on 127.0.0.1:`port` (0 takes a free one). Raises ConfigError."""

    def __init__(self, queue: DurableQueue, port: int) -> None:
        pages: dict[str, Any] = {}
        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), partial(_Answer, pages))
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"The keys of OIDC tokens cannot be served on 127.0.0.1:{port}: {error}. Give another port: --issuer."
            ) from error
        self._server.daemon_threads = True
        self._thread: threading.Thread | None = None
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.certs_url = f"{self.url}/certs"
        pages["/certs"] = publish(queue, self.url)
        pages["/.well-known/openid-configuration"] = {
            "issuer": self.url,
            "jwks_uri": self.certs_url,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }

    def start(self) -> None:
        """Begin to answer."""
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="defer-local-issuer", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop answering, and free the port."""
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class _Answer(BaseHTTPRequestHandler):
    timeout = 10.0

    def __init__(self, pages: dict[str, Any], *given: Any) -> None:
        self._pages = pages
        super().__init__(*given)

    def do_GET(self) -> None:
        page = self._pages.get(self.path.partition("?")[0])
        if page is None:
            self.send_error(404)
            return
        data = json.dumps(page).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", f"public, max-age={LIFETIME}")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Log nothing: requests for keys are no news."""
