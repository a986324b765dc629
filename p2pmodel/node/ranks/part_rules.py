"""The plan file of `fetch --plan`: which tensors a rank needs, whole or in part.

The first `[[part]]` table that matches a tensor decides; `rest` decides for the others.
"""

import fnmatch
import json
import re
import tomllib
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from p2pmodel.core.content.names import printable
from p2pmodel.core.content.rank_plan import Nothing, Share, Whole
from p2pmodel.core.content.tensor_cuts import Cut
from p2pmodel.errors import InvalidInput
from p2pmodel.store.files.folder import read_regular

HINT = "see docs/ranks.md"
MAX_PLAN = 1 << 20
_LAYER = re.compile(r"(?:^|\.)(?:layers|h)\.(\d+)\.")
_EXPERT = re.compile(r"\.experts\.(\d+)\.")
_SPAN = re.compile(r"(\d{1,6})(?:-(\d{1,6}))?")


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class PartTable(_Table):
    """One `[[part]]` table. A tensor must fit all that is given: the pattern of its name, its layer, its expert."""

    tensors: str = Field(default="*", max_length=1000)
    layers: str | None = None
    experts: str | None = None
    share: Literal["whole", "nothing", "cut"] = "whole"
    dim: int = Field(default=0, ge=0, le=16)
    of: int = Field(default=1, ge=1, le=65536)
    index: int = Field(default=0, ge=0)
    packed: int = Field(default=1, ge=1, le=16)

    @field_validator("layers", "experts")
    @classmethod
    def _check_span(cls, value: str | None) -> str | None:
        if value is not None and not _SPAN.fullmatch(value):
            raise ValueError("write one number, or the first and the last as in 0-11")
        return value

    @model_validator(mode="after")
    def _check_cut(self) -> Self:
        if self.index >= self.of:
            raise ValueError(f"index {self.index} is not below of = {self.of}")
        if self.share != "cut" and (self.of, self.dim, self.packed) != (1, 0, 1):
            raise ValueError("dim, of, index and packed need share = 'cut'")
        return self

    def matches(self, name: str) -> bool:
        """Whether it decides for the tensor `name`."""
        return (
            fnmatch.fnmatchcase(name, self.tensors)
            and _within(self.layers, _LAYER.search(name))
            and _within(self.experts, _EXPERT.search(name))
        )

    @property
    def what(self) -> Share:
        """What the rank needs of a tensor."""
        if self.share == "cut":
            return Cut(self.dim, self.of, self.index, self.packed)
        return Whole() if self.share == "whole" else Nothing()


class PartPlan(_Table):
    """A plan file; `rule` is what it says."""

    part: tuple[PartTable, ...] = Field(max_length=10_000)
    rest: Literal["whole", "nothing"] = "whole"

    def rule(self, name: str, shape: tuple[int, ...]) -> Share:  # noqa: ARG002 - a Rule
        """What the rank needs of the tensor `name`."""
        for table in self.part:
            if table.matches(name):
                return table.what
        return Whole() if self.rest == "whole" else Nothing()


def read_plan(path: Path) -> PartPlan:
    """The plan in the TOML file `path`. Raises InvalidInput for what is wrong with it."""
    try:
        raw = read_regular(path.resolve())  # what the user names may be a link
    except OSError as error:
        raise _wrong(path, error.strerror or "it cannot be read") from None
    if len(raw) > MAX_PLAN:
        raise _wrong(path, f"it is longer than {MAX_PLAN >> 20} MiB")
    try:
        return PartPlan.model_validate_json(json.dumps(tomllib.loads(raw.decode()), default=str))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _wrong(path, str(error)) from None
    except RecursionError:
        raise _wrong(path, "it is nested too deeply") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _wrong(path, f"{where}: {first['msg'].removeprefix('Value error, ')}".removeprefix(": ")) from None


def _wrong(path: Path, why: str) -> InvalidInput:
    return InvalidInput(f"the plan {printable(str(path))} cannot be used: {printable(why, 200)}", hint=HINT)


def _within(span: str | None, found: re.Match[str] | None) -> bool:
    if span is None:
        return True
    match = _SPAN.fullmatch(span)
    assert match is not None, "it was checked"
    first, last = int(match[1]), int(match[2] or match[1])
    return found is not None and first <= int(found[1]) <= last
