"""The system check of iterations."""

from __future__ import annotations

import pytest
from django.test.utils import modify_settings

from defer_iteration.checks import check_installed

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


def test_a_check_asks_for_the_tables_of_tasks() -> None:
    assert check_installed(None) == []
    with modify_settings(INSTALLED_APPS={"remove": ["defer_django"]}):
        [error] = check_installed(None)
    assert error.id == "defer.E006"
