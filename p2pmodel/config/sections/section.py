"""What all sections of the settings share."""

from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationInfo, field_validator

from p2pmodel.core.sizes import parse_size
from p2pmodel.errors import InvalidInput

_LARGEST = (1 << 63) - 1
"""That of the system's calls and of the libraries."""


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
    """A frozen section without unknown keys, unusable paths, and numbers that are not finite or above 64 bits."""

    # Built with the settings that are read, not with each class that the settings are made of.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    @field_validator("*", mode="before")
    @classmethod
    def _check_path(cls, value: Any, info: ValidationInfo) -> Any:
        """An empty path would be the current folder."""
        annotation = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, str) and Path in (annotation, *get_args(annotation)):
            if not value:
                raise ValueError("the path is empty")
            if "\0" in value:
                raise ValueError("the path has a null character")
        return value

    @field_validator("*")
    @classmethod
    def _check_size(cls, value: Any) -> Any:
        if isinstance(value, int) and abs(value) > _LARGEST:
            raise ValueError(f"{value} is too large")
        return value
