"""What the unit tests of defer_django have, too."""

from unit.defer_django.conftest import calls, fresh_configuration

__all__ = ["calls", "fresh_configuration"]
