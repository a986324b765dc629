"""Roll-outs and reports of nodes as JSON, on the wire and on disk. Pure.

Every text, number and list that is read has a bound; what is malformed raises InvalidInput.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar, cast, get_args

from p2pmodel.coordinator.rollout.links import NO_LINKS, RATE_SOURCES, LinkRate, NodeLinks, RateSource
from p2pmodel.coordinator.rollout.nodes import (
    GATES,
    PHASES,
    Gate,
    GateTime,
    NodeBytes,
    NodeFailure,
    NodePhase,
    NodeReport,
    PreflightCheck,
    RolloutNode,
)
from p2pmodel.coordinator.rollout.rollout import MAX_NODES, MinReady, RolloutSpec, RolloutState, RolloutView
from p2pmodel.core.content.names import RepoId, check_node_name, printable
from p2pmodel.core.plain_json import parse_json
from p2pmodel.errors import InvalidInput

VERSION = 1
"""Version of the messages. A reader ignores keys that it does not know."""
MAX_REPORT = 64 << 10
"""Bytes of the longest report of one node."""
MAX_REPORTS = 64
"""Reports in one message of a node."""
MAX_ON_BEHALF = 64
"""Reports in one message of a launcher: each has a phase, a failure, and checks."""
MAX_SPEC = 1 << 20
"""Bytes of the longest request for a roll-out, and of the longest message of a launcher."""
MAX_ROLLOUT = 64 << 20
"""Bytes of the longest state of a roll-out."""
MAX_CHECKS = 32
"""Preflight checks of one node."""
_MAX_TEXT = 300
_STATES = get_args(RolloutState)

T = TypeVar("T")


def report_plain(report: NodeReport) -> dict[str, Any]:
    """`report` as values for JSON."""
    plain: dict[str, Any] = {"v": VERSION, "phase": report.phase}
    if report.ages:
        plain["ages"] = {gate: round(age, 3) for gate, age in report.ages.items()}
    if report.bytes is not None:
        plain |= {"total": report.total, "bytes": asdict(report.bytes), "rate": report.rate}
    if report.why is not None:
        plain["why"] = report.why
    if report.failure is not None:
        plain["error"] = asdict(report.failure)
    if report.preflight is not None:
        plain["preflight"] = [asdict(check) for check in report.preflight]
    if report.links != NO_LINKS:
        plain["links"] = _links_plain(report.links)
    return plain


def report_of(plain: Any) -> NodeReport:
    """The reverse of `report_plain`. Raises InvalidInput."""
    return _read("the report of a node", lambda: _report(plain))


def spec_plain(spec: RolloutSpec) -> dict[str, Any]:
    """`spec` as values for JSON."""
    return {
        "v": VERSION,
        "repo": str(spec.repo),
        "commit": spec.commit,
        "nodes": list(spec.nodes),
        "gates": list(spec.gates),
        "deadline": spec.deadline,
        "min_ready": str(spec.min_ready),
    }


def spec_of(plain: Any) -> RolloutSpec:
    """The reverse of `spec_plain`. Raises InvalidInput."""
    return _read("the request for a roll-out", lambda: _spec(plain))


def node_plain(node: RolloutNode) -> dict[str, Any]:
    """`node` as values for JSON."""
    return {
        "name": node.name,
        "listed": node.listed,
        "phase": node.phase,
        "gates": {gate: [round(t.seconds, 3), round(t.wall, 3)] for gate, t in node.gates.items()},
        "total": node.total,
        "bytes": asdict(node.bytes),
        "rate": node.rate,
        "why": node.why,
        "error": None if node.failure is None else asdict(node.failure),
        "preflight": [asdict(check) for check in node.preflight],
        "heard": None if node.heard is None else round(node.heard, 3),
        "links": _links_plain(node.links),
    }


def node_of(plain: Any) -> RolloutNode:
    """The reverse of `node_plain`. Raises InvalidInput."""
    return _read("the state of a node", lambda: _node(plain))


def head_plain(view: RolloutView) -> dict[str, Any]:
    """`view` without its nodes, as values for JSON."""
    spec = spec_plain(view.spec)
    spec["nodes"] = len(view.spec.nodes)  # the nodes themselves have `listed`
    return {"id": view.id, "state": view.state, "owner": view.owner, "began": view.began} | {
        "elapsed": round(view.elapsed, 3),
        "enough_after": None if view.enough_after is None else round(view.enough_after, 3),
        "spec": spec,
    }


def view_plain(view: RolloutView, nodes: Sequence[dict[str, Any]] | None = None) -> dict[str, Any]:
    """`view` as values for JSON. `nodes`: its nodes, where they are at hand."""
    return head_plain(view) | {"nodes": list(map(node_plain, view.nodes)) if nodes is None else nodes}


def view_of(plain: Any) -> RolloutView:
    """The reverse of `view_plain`. Raises InvalidInput."""
    return _read("the state of a roll-out", lambda: head_of(plain, [node_of(each) for each in plain["nodes"]]))


def head_of(plain: Any, nodes: Sequence[RolloutNode]) -> RolloutView:
    """The view with the head `plain` and these nodes. Raises InvalidInput."""
    return _read("the state of a roll-out", lambda: _view(plain, nodes))


def object_text(plain: Mapping[str, Any]) -> str:
    """Values as JSON text."""
    return json.dumps(plain, separators=(",", ":"))


def parsed_object(data: bytes | str, limit: int) -> dict[str, Any]:
    """The JSON object in `data`. Raises InvalidInput."""
    if len(data) > limit:
        raise InvalidInput(f"the message is longer than {limit} bytes")
    try:
        plain = parse_json(data)
    except ValueError:
        plain = None
    if not isinstance(plain, dict):
        raise InvalidInput("the message is not a JSON object")
    return plain


def rollout_id(text: Any) -> str:
    """The id of a roll-out. Raises InvalidInput."""
    if not isinstance(text, str) or not 4 <= len(text) <= 32 or set(text) - set("0123456789abcdef"):
        shown = printable(text, 40) if isinstance(text, str) else "a value that is no text"
        raise InvalidInput(f"'{shown}' is not the id of a roll-out", hint="'p2pmodel rollout ls' lists them")
    return text


def _read(what: str, read: Callable[[], T]) -> T:
    try:
        return read()
    except InvalidInput:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        detail = f"'{error.args[0]}' is missing" if isinstance(error, KeyError) else str(error)
        raise InvalidInput(f"{what} is malformed: {printable(detail, 200)}") from None


def _report(plain: Any) -> NodeReport:
    _check_version(plain)
    has_numbers, why = "bytes" in plain, plain.get("why")
    error, preflight = plain.get("error"), plain.get("preflight")
    return NodeReport(
        phase=_phase(plain["phase"]),
        ages={_gate(gate): _seconds(age) for gate, age in dict(plain.get("ages", {})).items()},
        total=_count(plain.get("total", 0)),
        bytes=_bytes(plain["bytes"]) if has_numbers else None,
        rate=_count(plain.get("rate", 0)),
        why=None if why is None else _text(why),
        failure=None if error is None else _failure(error),
        preflight=None if preflight is None else _checks(preflight),
        links=_links(plain.get("links", {})),
    )


def _spec(plain: Any) -> RolloutSpec:
    _check_version(plain)
    nodes, min_ready = plain.get("nodes", []), plain.get("min_ready", "100%")
    if not isinstance(nodes, list) or len(nodes) > MAX_NODES:
        raise ValueError(f"'nodes' is a list of at most {MAX_NODES} names")
    return RolloutSpec(
        repo=RepoId(_string(plain["repo"])),
        commit=_string(plain["commit"]),
        nodes=tuple(map(_string, nodes)),
        gates=tuple(_gate(gate) for gate in plain.get("gates", ("files",))[: len(GATES)]),
        deadline=_seconds(plain.get("deadline", 3600.0)),
        min_ready=MinReady.parse(min_ready if isinstance(min_ready, str) else str(_count(min_ready))),
    )


def _node(plain: Any) -> RolloutNode:
    error, heard = plain["error"], plain["heard"]
    return RolloutNode(
        name=check_node_name(_string(plain["name"])),
        listed=bool(plain["listed"]),
        phase=_phase(plain["phase"]),
        gates={_gate(gate): GateTime(*map(_seconds, times)) for gate, times in plain["gates"].items()},
        total=_count(plain["total"]),
        bytes=_bytes(plain["bytes"]),
        rate=_count(plain["rate"]),
        why=_text(plain["why"]),
        failure=None if error is None else _failure(error),
        preflight=_checks(plain["preflight"]),
        heard=None if heard is None else _seconds(heard),
        links=_links(plain.get("links", {})),
    )


def _view(plain: Any, nodes: Sequence[RolloutNode]) -> RolloutView:
    if len(nodes) > MAX_NODES:
        raise ValueError(f"more than {MAX_NODES} nodes")
    if plain["state"] not in _STATES:
        raise ValueError("its state is unknown")
    enough = plain["enough_after"]
    listed = [node.name for node in nodes if node.listed]
    return RolloutView(
        id=rollout_id(plain["id"]),
        spec=_spec(plain["spec"] | {"nodes": listed}),
        owner=_text(plain["owner"]),
        state=cast("RolloutState", plain["state"]),
        began=_seconds(plain["began"]),
        elapsed=_seconds(plain["elapsed"]),
        nodes=tuple(nodes),
        enough_after=None if enough is None else _seconds(enough),
    )


def _check_version(plain: Any) -> None:
    version = plain.get("v", VERSION)
    if version != VERSION:
        raise InvalidInput(f"the version of the message is unknown; known: {VERSION}")


def _phase(value: Any) -> NodePhase:
    if value not in PHASES:
        raise ValueError("its phase is unknown")
    return cast("NodePhase", value)


def _gate(value: Any) -> Gate:
    if value not in GATES:
        raise ValueError("a gate is unknown")
    return cast("Gate", value)


def _bytes(plain: Any) -> NodeBytes:
    return NodeBytes(*(_count(plain.get(source, 0)) for source in ("origin", "seeder", "peers", "cache")))


def _failure(plain: Any) -> NodeFailure:
    return NodeFailure(_text(plain["code"]), _text(plain["message"]), _text(plain.get("hint", "")))


def _checks(plain: Any) -> tuple[PreflightCheck, ...]:
    if not isinstance(plain, list) or len(plain) > MAX_CHECKS:
        raise ValueError(f"'preflight' is a list of at most {MAX_CHECKS} checks")
    return tuple(PreflightCheck(_text(c["name"], 64), bool(c["ok"]), _text(c.get("detail", ""))) for c in plain)


def _links_plain(links: NodeLinks) -> dict[str, Any]:
    """The known links as `[bytes a second, source]` each."""
    rates = {"down": links.down, "up": links.up, "mirrors": links.mirrors}
    known: dict[str, Any] = {name: [each.rate, each.source] for name, each in rates.items() if each}
    return known | ({"mirroring": True} if links.mirroring else {})


def _links(plain: Any) -> NodeLinks:
    down, up, mirrors = (_rate(plain.get(name)) for name in ("down", "up", "mirrors"))
    return NodeLinks(down, up, mirrors, bool(plain.get("mirroring")))


def _rate(plain: Any) -> LinkRate | None:
    if plain is None:
        return None
    rate, source = plain
    if source not in RATE_SOURCES or _count(rate) == 0:
        raise ValueError("a rate is not a number")
    return LinkRate(rate, cast("RateSource", source))


def _text(value: Any, limit: int = _MAX_TEXT) -> str:
    return printable(_string(value), limit)


def _string(value: Any) -> str:
    # Not str(): a value that is nested deeply has none.
    if not isinstance(value, str):
        raise TypeError("a text is not a string")
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 62:
        raise ValueError("a number is not a count")
    return value


def _seconds(value: Any, most: float = 1e11) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("a time is not a number")
    if not 0 <= value <= most:
        raise ValueError("a time is out of bounds")
    return float(value)
