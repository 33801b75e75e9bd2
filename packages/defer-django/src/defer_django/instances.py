"""Model instances on the wire: fields and the rest of `__dict__`, minus relation caches, which are not collected.

An instance travels as `[label, alias, adding, attributes]`; one whose class defines its own pickling as
`[function, arguments, state]`, the result of its `__reduce__`. The caller's instance is only read. With its caches
(`_wipe_related_caches=False`) it is left to pickle: caches refer back to their instance.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import django
from django.apps import apps
from django.db.models import FileField, Model
from django.db.models.base import ModelState, model_unpickle
from django.db.models.fields.files import FieldFile
from django.db.models.manager import BaseManager
from django.utils.functional import LazyObject, Promise, _lazy_proxy_unpickle
from django.utils.safestring import SafeString

from defer_core import register_type
from defer_core.errors import CallableNotFoundError, DecodeError, UnserializableError
from defer_core.spi import register_describer, wiping

PREFETCHED = "_prefetched_objects_cache"
_REDUCE, _GETSTATE, _SETSTATE = Model.__reduce__, Model.__getstate__, Model.__setstate__
_NOT_COLLECTED = ("_state", PREFETCHED, "_django_version")


def register() -> None:
    """Let the values that Django adds to Python travel."""
    register_type(Model, "django.Model", encode, decode, subclasses=True, reduce=_reduced)
    register_type(ModelState, "django.state", _state, lambda wire: _bare(*wire))
    register_type(LazyObject, "django.lazyobject", _unwrapped, lambda value: value, subclasses=True)
    register_type(Promise, "django.lazy", _lazy_parts, _lazy, subclasses=True)
    register_type(BaseManager, "django.manager", _name_of, _manager, subclasses=True)
    register_type(SafeString, "django.safe", lambda text: text + "", SafeString)
    register_describer("django.Model", in_words)
    register_describer("django.safe", repr)


def encode(instance: Model) -> Any:
    """Return what travels of an instance; NotImplemented if it travels with its caches. Raises UnserializableError."""
    if isinstance(instance, LazyObject):
        instance = _unwrapped(instance)
    if not wiping():
        return NotImplemented
    form = _form(type(instance))  # type: ignore[arg-type]
    if _pickles_as_usual(type(instance)):
        return _collect(form, instance.__dict__, instance._state)
    function, arguments, *rest = instance.__reduce_ex__(4)
    state = rest[0] if rest else None
    if function is model_unpickle and isinstance(state, Mapping):  # most likely a `__getstate__` of its own
        return _collect(form, state, state.get("_state", instance._state))
    if any(each is not None for each in rest[1:]):
        raise UnserializableError(f"The __reduce__ of {type(instance).__qualname__} gives more than Django can read.")
    return [function, [_without_caches(each) for each in arguments], _without_caches(state)]


def in_words(wire: Any) -> str:
    """Describe an encoded instance: `<shop.Order 17>`."""
    label, _, _, values = wire
    return f"<{label} {values.get(apps.get_model(label)._meta.pk.attname)!r}>"


def _unwrapped(proxy: LazyObject) -> Any:
    """Return the object behind a `SimpleLazyObject` such as `request.user`."""
    return proxy.__reduce__()[1][0]


class Form(NamedTuple):
    """The part that all instances of a model share."""

    label: str
    """The model's name for `apps.get_model`."""
    files: list[str]
    """The attributes of its file fields; a file in any other attribute is a plain value."""


@lru_cache(maxsize=1024)
def _form(model: Any) -> Form:
    files = [each.attname for each in model._meta.concrete_fields if isinstance(each, FileField)]
    return Form(model._meta.label, files)


def _pickles_as_usual(kind: Any) -> bool:
    """Tell whether a model leaves pickling to Django."""
    return (
        kind.__reduce__ is _REDUCE
        and kind.__getstate__ is _GETSTATE
        and kind.__setstate__ is _SETSTATE
        and kind.__reduce_ex__ is object.__reduce_ex__
    )


def _reduced(instance: Model) -> tuple[Any, ...]:
    """Return the pickle's parts of an instance that its own attributes refer to, without caches as well."""
    function, arguments, *rest = instance.__reduce_ex__(4)
    state = rest[0] if rest else None
    if function is model_unpickle and isinstance(state, Mapping):
        kept = {key: state[key] for key in ("_state", "_django_version") if key in state}
        state = _values(_form(type(instance)), state) | kept  # type: ignore[arg-type]
    return function, arguments, _without_caches(state), *rest[1:]


def _collect(form: Form, attributes: Mapping[str, Any], state: ModelState) -> list[Any]:
    return [form.label, state.db, state.adding, _values(form, attributes)]


def _values(form: Form, attributes: Mapping[str, Any]) -> dict[str, Any]:
    values = dict(attributes)
    for key in _NOT_COLLECTED:
        values.pop(key, None)
    for key in form.files:
        if isinstance(value := values.get(key), FieldFile):
            values[key] = _file_name(value)
    return values


def _file_name(value: FieldFile) -> str | None:
    """Return the name of a file, as in the database: the object in `__dict__` refers back to the instance."""
    if not getattr(value, "_committed", True):
        raise UnserializableError(
            f"The file {value.name!r} has not been saved yet: save the instance before deferring it."
        )
    return value.name


def _without_caches(state: Any) -> Any:
    """Remove the caches from the state of a model's own `__reduce__`, which may be a copy of `__dict__`."""
    if not isinstance(state, Mapping) or not isinstance(state.get("_state"), ModelState):
        return state
    return {key: value for key, value in state.items() if key != PREFETCHED}


def _state(state: ModelState) -> Any:
    """Encode a state without relation caches, wherever a `__reduce__` puts it."""
    return [state.db, state.adding] if wiping() else NotImplemented


def _bare(db: str | None, adding: bool) -> ModelState:
    state = ModelState()
    state.db, state.adding = db, adding
    return state


def decode(wire: list[Any]) -> Model:
    """Make the instance without its `__init__` and signals. Raises CallableNotFoundError."""
    if not isinstance(wire[0], str):
        return _rebuilt(*wire)
    label, db, adding, values = wire
    model = _model(label)
    instance = model.__new__(model)
    instance._state = _bare(db, adding)
    if _pickles_as_usual(model):
        instance.__dict__.update(values)
    else:
        instance.__setstate__({"_state": instance._state, "_django_version": django.__version__, **values})
    return instance


def _model(label: str) -> Any:
    try:
        return apps.get_model(label)
    except (LookupError, ValueError) as error:
        raise CallableNotFoundError(f"There is no model {label} here: {error}") from error


def _rebuilt(function: Any, arguments: list[Any], state: Any) -> Model:
    made: Model = function(*arguments)
    if not isinstance(made, Model):  # a body must not set its state
        raise DecodeError(f"The encoded model instance makes a {type(made).__qualname__}.")
    if state is not None:
        if hasattr(made, "__setstate__"):
            made.__setstate__(state)
        else:
            made.__dict__.update(state)
    return made


def _name_of(manager: BaseManager[Any]) -> Any:
    """Name a manager by its model: the class of many a manager (`from_queryset`) cannot be imported."""
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


def _lazy_parts(text: Promise) -> Any:
    """Return the parts of a lazy string; leave a plural, whose `__reduce__` has another form, to pickle."""
    function, parts = text.__reduce__()[:2]
    return list(parts) if function is _lazy_proxy_unpickle else NotImplemented


def _lazy(wire: list[Any]) -> Any:
    function, arguments, keywords, *results = wire
    return _lazy_proxy_unpickle(function, tuple(arguments), keywords, *results)
