"""The settings of the documents for Cloud Logging, as pasted into a site's own: what its process prints."""

from __future__ import annotations

import json
from typing import Any

from outside.blocks import printed
from unit.defer_django.test_stock_logging import run

ID = "4bf92f3577b34da6a3ce929d0e0e4736"


TRACED = f"""
os.environ["GOOGLE_CLOUD_PROJECT"] = "shop"
untraced = post
def post(*given, **headers):
    untraced(*given, **headers, HTTP_X_CLOUD_TRACE_CONTEXT="{ID}/17;o=1")
"""


def lines(*program: str, debug: bool = False) -> list[dict[str, Any]]:
    """What the log says, each line an object."""
    [block] = [each.text for each in printed() if each.text.startswith("LOGGING = ")]
    _, said = run(TRACED, *program, debug=debug, settings=f"LOGGING={block.removeprefix('LOGGING = ')},")
    return [json.loads(line) for line in said]


def test_a_failing_a_dying_and_a_forbidden_task_are_a_line_each() -> None:
    failing, gave_up, dying, forbidden = lines(
        "deliver(shop.ship, 1, 2, _retry_options={'max_attempts': 2})",
        "deliver(shop.refund, 1)",
        "post('/_ah/queue/deferred', b'x')",
    )
    severities = [each["severity"] for each in (failing, gave_up, dying, forbidden)]
    assert severities == ["WARNING", "ERROR", "ERROR", "WARNING"]
    assert [each["outcome"] for each in (failing, gave_up, dying, forbidden)] == ["failed", "dead", "dead", "forbidden"]
    assert (gave_up["reason"], dying["reason"]) == ("gave up", "permanent")
    for each in (failing, gave_up, dying):
        assert (each["task"], each["queue"]) == ("t-1", "default") and "Traceback" in each["stack_trace"]
    assert (failing["function"], failing["attempt"], gave_up["attempt"]) == ("shop:ship", 1, 2)
    assert failing["error"] == "ValueError('order 4711 has no lines')"
    assert "appengine: no task headers" in forbidden["error"]
    for each in (failing, gave_up, dying, forbidden):
        assert each["logging.googleapis.com/trace"] == f"projects/shop/traces/{ID}"


def test_a_task_that_succeeds_is_a_line_below_its_own() -> None:
    own, done = lines(
        "def pack(order): __import__('logging').getLogger('shop').warning('no box', extra={'order': order})",
        "shop.pack = pack; pack.__module__ = 'shop'",
        "deliver(shop.pack, 1)",
    )
    assert (own["logger"], own["order"], own["task"]) == ("shop", 4711, "t-1")
    assert (done["outcome"], done["function"], done["severity"]) == ("done", "shop:pack", "INFO")
    assert own["logging.googleapis.com/trace"] == done["logging.googleapis.com/trace"]


def test_a_failing_task_is_no_mail_to_the_admins_and_a_broken_page_is() -> None:
    *_, mails = lines(
        "from django.conf import settings; from django.core import mail; mail.outbox = []",
        "settings.ADMINS = [('Operator', 'operator@example.com')]",
        "settings.EMAIL_BACKEND = 'django.core.mail.backends.locmem.EmailBackend'",
        "sys.modules['site_urls'].urlpatterns.append(path('broken', lambda request: 1 / 0))",
        "deliver(shop.ship, 1, 2, 3, 4, _retry_options={'max_attempts': 4})",
        "post('/broken', b'')",
        "__import__('logging').getLogger('shop').info('mails', extra={'of': [each.subject for each in mail.outbox]})",
    )
    [subject] = mails["of"]
    assert "Internal Server Error: /broken" in subject


def test_with_debug_each_line_is_json_too_and_one_has_the_traceback() -> None:
    found = lines("deliver(shop.ship, 1)", debug=True)
    assert [each["logger"] for each in found if "stack_trace" in each] == ["django.request"]
    assert [each["outcome"] for each in found if each["logger"] == "defer"] == ["failed"]
