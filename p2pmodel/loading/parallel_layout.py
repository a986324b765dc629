"""How a model's tensors are divided among the ranks of a tensor-parallel engine, as its configuration in transformers
says (`base_model_tp_plan`). No weight is read, and no code of the repository runs.

Names are those of the repository's files, shapes decide where a name does not: fused experts are stored as (experts,
in, out) or (experts, out, in). What is not certain is taken whole, which is never wrong.
"""

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2pmodel.core.content.names import printable
from p2pmodel.core.content.rank_plan import Nothing, Rule, Share, Whole
from p2pmodel.core.content.tensor_cuts import Cut
from p2pmodel.core.plain_json import parse_json
from p2pmodel.errors import InvalidInput
from p2pmodel.loading import optional_imports

_ROWS = ("colwise", "colwise_rep", "colwise_gather_output")
"""Styles that divide the output features: the first dimension of a stored weight, and a bias."""
_COLUMNS = ("rowwise", "rowwise_rep", "rowwise_split_input")
"""Styles that divide the input features: the last dimension of a stored weight, and no bias."""
_FUSED = "packed_colwise"
_OTHER_TOWERS = re.compile(r"(?:^|\.)(?:vision|visual|audio|image|speech)\w*\.")
"""Parts of a model to which the plan of its language model does not apply."""
_EXPERT = re.compile(r"\.experts\.(?P<expert>\d+)\.(?P<kind>gate_proj|up_proj|down_proj|w1|w2|w3)\.(?P<value>\w+)$")
_FUSED_EXPERTS = re.compile(r"\.experts\.(?P<kind>gate_up_proj|down_proj)$")
_LAST = re.compile(r"\.(?P<value>weight|bias)$")


@dataclass(frozen=True, slots=True)
class ParallelRank:
    """Rank `index` of `of`. `whole_experts`: the routed experts are divided by number (expert parallel)."""

    of: int
    index: int
    whole_experts: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.of:
            what = f"--rank {self.index} is not below --tensor-parallel {self.of}"
            raise InvalidInput(what, hint="ranks count from 0")

    def __str__(self) -> str:
        return f"rank {self.index} of {self.of}"


def parallel_rule(folder: Path, rank: ParallelRank, on_unknown: Callable[[str], None]) -> Rule:
    """What `rank` needs of each tensor of the model with its config.json in `folder`: all of it where no division is
    known, and `on_unknown` is told why.

    Raises LocalResource without the libraries.
    """
    optional_imports.require()
    try:
        config = _text_config(folder / "config.json")
        plan = _plan_of(config, rank)
    except _UnknownDivision as unknown:
        on_unknown(str(unknown))
        return lambda _name, _shape: Whole()
    return _LayoutRule(plan, rank, config).share


class _UnknownDivision(Exception):
    """Why no division of a model is known."""


def _plan_of(config: Any, rank: ParallelRank) -> dict[str, str]:
    plan = dict(getattr(config, "base_model_tp_plan", None) or {})
    if not plan:
        kind = printable(str(getattr(config, "model_type", "")), 60)
        raise _UnknownDivision(f"transformers knows no division of the model type '{kind}'")
    heads = _number(config, "num_attention_heads")
    if heads is not None and heads % rank.of:
        raise _UnknownDivision(f"{heads} attention heads cannot be divided among {rank.of} ranks")
    return plan


class _LayoutRule:
    def __init__(self, plan: Mapping[str, str], rank: ParallelRank, config: Any) -> None:
        self._styles = [(_pattern(name), style) for name, style in plan.items() if style in (*_ROWS, *_COLUMNS)]
        self._has_experts = any(style == _FUSED for style in plan.values())
        self._rank = rank
        self._kv_heads = _number(config, "num_key_value_heads")
        self._experts = _number(config, "num_experts", "num_local_experts", "n_routed_experts")
        self._width = _number(config, "moe_intermediate_size", "intermediate_size")

    def share(self, name: str, shape: tuple[int, ...]) -> Share:
        """A Rule."""
        if _OTHER_TOWERS.search(name):
            return Whole()
        if self._has_experts and (expert := _EXPERT.search(name)):
            return self._of_expert(expert, shape)
        if self._has_experts and (fused := _FUSED_EXPERTS.search(name)):
            return self._of_fused(fused["kind"], shape)
        return self._of_module(name, shape)

    def _of_module(self, name: str, shape: tuple[int, ...]) -> Share:
        last = _LAST.search(name)
        if last is None:
            return Whole()
        module = name[: last.start()]
        style = next((style for pattern, style in self._styles if pattern.search(module)), None)
        if style in _ROWS:
            return self._of_heads() if module.endswith((".k_proj", ".v_proj")) else self._cut(0)
        if style in _COLUMNS and last["value"] == "weight" and len(shape) == 2:
            return self._cut(1)
        return Whole()

    def _of_heads(self) -> Share:
        """Keys and values: with fewer heads than ranks, several ranks have the same head."""
        heads, rank = self._kv_heads, self._rank
        if heads is None or heads % rank.of == 0:
            return self._cut(0)
        return Cut(0, heads, rank.index * heads // rank.of) if rank.of % heads == 0 else Whole()

    def _of_expert(self, expert: re.Match[str], shape: tuple[int, ...]) -> Share:
        if self._rank.whole_experts:
            return self._by_number(int(expert["expert"]))
        if expert["value"] != "weight" or len(shape) != 2:
            return Whole()
        return self._cut(1 if expert["kind"] in ("down_proj", "w2") else 0)

    def _by_number(self, expert: int) -> Share:
        """Ranks have consecutive experts, each as many."""
        rank, experts = self._rank, self._experts
        if experts is None or experts % rank.of:
            return Whole()
        return Whole() if expert // (experts // rank.of) == rank.index else Nothing()

    def _of_fused(self, kind: str, shape: tuple[int, ...]) -> Share:
        if len(shape) != 3:
            return Whole()
        if self._rank.whole_experts:
            return self._cut(0)
        packed = 2 if kind == "gate_up_proj" else 1
        fitting = [dim for dim in (1, 2) if self._width is not None and shape[dim] == packed * self._width]
        return self._cut(fitting[0], packed) if len(fitting) == 1 else Whole()

    def _cut(self, dim: int, packed: int = 1) -> Cut:
        return Cut(dim, self._rank.of, self._rank.index, packed)


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(r"(?:^|\.)" + re.escape(name).replace(r"\*", r"\d+") + "$")


def _number(config: Any, *names: str) -> int | None:
    """The first of these values that the configuration has."""
    values = (getattr(config, name, None) for name in names)
    return next((value for value in values if isinstance(value, int)), None)


def _text_config(path: Path) -> Any:
    try:
        plain = parse_json(path.read_bytes())
        kind = plain["model_type"]
    except (OSError, ValueError, KeyError, TypeError):
        raise _UnknownDivision("the repository has no config.json that names a model type") from None
    known = importlib.import_module("transformers.models.auto.configuration_auto").CONFIG_MAPPING
    if kind not in known:
        raise _UnknownDivision(f"transformers does not know the model type '{printable(str(kind), 60)}'")
    try:
        return known[kind].from_dict(plain).get_text_config()
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _UnknownDivision(f"config.json cannot be used: {printable(str(error), 200)}") from None
