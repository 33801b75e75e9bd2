"""The Django app of the shop."""

from django.apps import AppConfig


class OrdersConfig(AppConfig):
    """The app `orders`."""

    name = "orders"
