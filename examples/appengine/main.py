"""Orders on App Engine, without Django: the order and its task are committed together, or not at all."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from google.appengine.api import wrap_wsgi_app
from google.appengine.ext import ndb

import defer_core
import defer_gae_handler

defer_core.configure(transport="appengine")


class Order(ndb.Model):  # type: ignore[misc]
    """One order."""

    item = ndb.StringProperty()
    shipped = ndb.BooleanProperty(default=False)


def ship(number: int) -> None:
    """The task. It may run twice, so it asks first."""
    order = Order.get_by_id(number)
    if order is None:
        raise defer_core.PermanentTaskFailure(f"There is no order {number}.")
    if not order.shipped:
        order.shipped = True
        order.put()
        logging.info("Order %d is shipped.", number)


def take_order(item: str) -> int:
    """Write an order, and defer its shipping in the same transaction."""

    def work() -> int:
        number = Order(item=item).put().id()
        defer_core.defer(ship, number)
        return int(number)

    return int(ndb.transaction(work, xg=True))


def site(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """POST /order takes an order; GET / counts them."""
    if environ["REQUEST_METHOD"] == "POST" and environ["PATH_INFO"] == "/order":
        text = f"order {take_order('a book')}\n"
    else:
        text = f"{Order.query().count()} orders, {Order.query(Order.shipped == True).count()} shipped\n"  # noqa: E712
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [text.encode()]


# the SDK's middleware outside, so that a task may use the bundled services
app = wrap_wsgi_app(defer_gae_handler.wrap_wsgi_app(site))
