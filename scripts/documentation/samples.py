"""Sample values of types: enough to see which labels a metric has."""

import dataclasses
import enum
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

_SIMPLE: dict[Any, Any] = {str: "x", int: 1, float: 1.0, bool: True, type(None): None}


def sample_of(kind: Any) -> Any:
    """A value of the type `kind`. Raises TypeError for a type that no rule covers."""
    if kind in _SIMPLE:
        return _SIMPLE[kind]
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        return kind(**{field.name: sample_of(hints[field.name]) for field in dataclasses.fields(kind) if field.init})
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return next(iter(kind))
    return _generic(get_origin(kind), get_args(kind), kind)


def _generic(origin: Any, arguments: tuple[Any, ...], kind: Any) -> Any:
    if origin is Literal:
        return arguments[0]
    if origin in (Union, types.UnionType):
        return sample_of(next(each for each in arguments if each is not type(None)))
    if origin is tuple:
        return tuple(sample_of(each) for each in arguments if each is not Ellipsis)
    if origin in (list, Sequence):
        return [sample_of(arguments[0])]
    if origin in (dict, Mapping):
        return {sample_of(arguments[0]): sample_of(arguments[1])}
    raise TypeError(f"no sample of {kind!r}")
