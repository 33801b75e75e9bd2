"""A project without the handler's URLs."""

urlpatterns: list[object] = []
