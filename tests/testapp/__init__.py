"""The app of the Django tests."""
