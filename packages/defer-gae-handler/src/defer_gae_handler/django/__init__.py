"""The handler as a Django view."""
