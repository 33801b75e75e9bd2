"""Model instances on the wire: fields and the rest of `__dict__`, minus relation caches, which are not collected.

An instance travels as `[label, alias, adding, attributes]`; one whose class pickles in a way of its own as
`[function, arguments, state]`, which is what its `__reduce__` gave. The caller's instance is only read. Where the
caches are to travel, too (`_wipe_related_caches=False`), it is left to pickle: caches refer back to their instance.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from django.apps import apps
from django.db.models import FileField, Model
from django.db.models.base import ModelState, model_unpickle
from django.db.models.fields.files import FieldFile
from django.db.models.manager import BaseManager
from django.utils.functional import LazyObject, Promise, _lazy_proxy_unpickle
from django.utils.safestring import SafeString

from defer_core import codec
from defer_core.errors import CallableNotFoundError, UnserializableError

PREFETCHED = "_prefetched_objects_cache"
_REDUCE, _GETSTATE, _SETSTATE = Model.__reduce__, Model.__getstate__, Model.__setstate__
_NOT_COLLECTED = ("_state", PREFETCHED, "_django_version")


def register() -> None:
    """Let the values that Django adds to Python travel."""
    codec.register_type(Model, "django.Model", encode, decode, subclasses=True)
    codec.register_type(ModelState, "django.state", _state, lambda wire: _bare(*wire))
    codec.register_type(LazyObject, "django.lazyobject", _unwrapped, lambda value: value, subclasses=True)
    codec.register_type(Promise, "django.lazy", lambda text: list(text.__reduce__()[1]), _lazy, subclasses=True)
    codec.register_type(BaseManager, "django.manager", _name_of, _manager, subclasses=True)
    codec.register_type(SafeString, "django.safe", lambda text: text + "", SafeString)


def encode(instance: Model) -> Any:
    """What travels of an instance; NotImplemented where its caches are to travel, too. Raises UnserializableError."""
    if isinstance(instance, LazyObject):
        instance = _unwrapped(instance)
    if not codec.wiping():
        return NotImplemented
    form = _form(type(instance))  # type: ignore[arg-type]
    if _pickles_as_usual(type(instance)):
        return _collect(form, instance.__dict__, instance._state)
    function, arguments, *rest = instance.__reduce_ex__(4)
    state = rest[0] if rest else None
    if function is model_unpickle and isinstance(state, Mapping):  # a `__getstate__` of its own, most likely
        return _collect(form, state, state.get("_state", instance._state))
    if any(each is not None for each in rest[1:]):
        raise UnserializableError(f"The __reduce__ of {type(instance).__qualname__} gives more than Django can read.")
    return [function, [_without_caches(each) for each in arguments], _without_caches(state)]


def _unwrapped(proxy: LazyObject) -> Any:
    """What a `SimpleLazyObject`, such as `request.user`, stands for."""
    return proxy.__reduce__()[1][0]


class Form(NamedTuple):
    """What is the same for all instances of a model."""

    label: str
    """How apps call the model."""
    files: list[str]
    """Where an instance has files: what lies elsewhere in its `__dict__` is a value like any other."""


@lru_cache(maxsize=1024)
def _form(model: Any) -> Form:
    files = [each.attname for each in model._meta.concrete_fields if isinstance(each, FileField)]
    return Form(model._meta.label, files)


def _pickles_as_usual(kind: Any) -> bool:
    """Whether a model leaves it to Django how its instances are pickled."""
    return (
        kind.__reduce__ is _REDUCE
        and kind.__getstate__ is _GETSTATE
        and kind.__setstate__ is _SETSTATE
        and kind.__reduce_ex__ is object.__reduce_ex__
    )


def _collect(form: Form, attributes: Mapping[str, Any], state: ModelState) -> list[Any]:
    values = dict(attributes)
    for key in _NOT_COLLECTED:
        values.pop(key, None)
    for key in form.files:
        if isinstance(value := values.get(key), FieldFile):
            values[key] = _file_name(value)
    return [form.label, state.db, state.adding, values]


def _file_name(value: FieldFile) -> str | None:
    """A file field is its name, as in the database: the object in `__dict__` points back at the instance."""
    if not getattr(value, "_committed", True):
        raise UnserializableError(
            f"The file {value.name!r} has not been saved yet: save the instance before deferring it."
        )
    return value.name


def _without_caches(state: Any) -> Any:
    """What a model's own `__reduce__` gives, which may well be a copy of `__dict__`."""
    if not isinstance(state, Mapping) or not isinstance(state.get("_state"), ModelState):
        return state
    return {key: value for key, value in state.items() if key != PREFETCHED}


def _state(state: ModelState) -> Any:
    """Without relation caches, wherever a `__reduce__` puts it."""
    return [state.db, state.adding] if codec.wiping() else NotImplemented


def _bare(db: str | None, adding: bool) -> ModelState:
    state = ModelState()
    state.db, state.adding = db, adding
    return state


def decode(wire: list[Any]) -> Model:
    """The instance; neither `__init__` nor the signals of one are called. Raises CallableNotFoundError."""
    if not isinstance(wire[0], str):
        return _rebuilt(*wire)
    label, db, adding, values = wire
    model = _model(label)
    instance = model.__new__(model)
    instance._state = _bare(db, adding)
    if _pickles_as_usual(model):
        instance.__dict__.update(values)
    else:
        instance.__setstate__({"_state": instance._state, "_django_version": _version(), **values})
    return instance


def _model(label: str) -> Any:
    try:
        return apps.get_model(label)
    except (LookupError, ValueError) as error:
        raise CallableNotFoundError(f"There is no model {label} here: {error}") from error


def _rebuilt(function: Any, arguments: list[Any], state: Any) -> Model:
    made: Model = function(*arguments)
    if state is not None:
        if hasattr(made, "__setstate__"):
            made.__setstate__(state)
        else:
            made.__dict__.update(state)
    return made


def _version() -> str:
    import django

    return django.__version__


def _name_of(manager: BaseManager[Any]) -> Any:
    """Where a model has it: many a manager's class (`from_queryset`) has no name to be found by."""
    model = getattr(manager, "model", None)
    if model is None or model._meta.managers_map.get(manager.name) is not manager:
        return NotImplemented
    return [model._meta.label, manager.name]


def _manager(wire: list[str]) -> BaseManager[Any]:
    label, name = wire
    found: BaseManager[Any] | None = _model(label)._meta.managers_map.get(name)
    if found is None:
        raise CallableNotFoundError(f"{label} has no manager {name!r} here.")
    return found


def _lazy(wire: list[Any]) -> Any:
    function, arguments, keywords, *results = wire
    return _lazy_proxy_unpickle(function, tuple(arguments), keywords, *results)
