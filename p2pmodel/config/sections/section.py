"""What all sections of the settings share."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

from p2pmodel.core.sizes import parse_size
from p2pmodel.errors import InvalidInput


def split_list(value: Any, separator: str) -> Any:
    """The parts of a text such as an environment variable holds; what is no text stays as it is."""
    return tuple(part.strip() for part in value.split(separator) if part.strip()) if isinstance(value, str) else value


def _bytes(value: Any) -> Any:
    """A text such as `500GB` or `64MiB` as a number of bytes; what is no text stays as it is."""
    try:
        return parse_size(value) if isinstance(value, str) else value
    except InvalidInput as error:
        raise ValueError(str(error)) from None


ByteCount = Annotated[int, BeforeValidator(_bytes)]
"""A number of bytes; a text may have a unit (`core/sizes`)."""


class Section(BaseModel):
    """A frozen section without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")
