"""A roll-out as text: its state in a line, its gates, its nodes, and what is slow."""

from collections.abc import Sequence

from p2pmodel.cli.terminal.output import aligned, rate
from p2pmodel.coordinator.rollout.nodes import GATES, PHASES, RolloutNode
from p2pmodel.coordinator.rollout.report import GateReport, RolloutReport, rollout_report
from p2pmodel.coordinator.rollout.rollout import RolloutView
from p2pmodel.core.sizes import duration, human

MOST_NODES = 40
"""Nodes that are listed unless all are asked for: failed ones first, then the others that are not ready."""


def summary(view: RolloutView, report: RolloutReport) -> str:
    """The state of a roll-out in one line."""
    gate = report.last_gate
    parts = [
        f"{view.id}  {view.state}",
        f"{view.spec.repo}@{view.spec.commit[:8]}",
        f"{gate.passed} of {gate.nodes} {gate.gate}" + (" (enough)" if report.enough and view.open else ""),
        duration(view.elapsed),
    ]
    if report.rate:
        parts.append(f"{human(report.rate)}/s")
    if report.origin_copies is not None:
        parts.append(f"{report.origin_copies:.2f} copies from mirrors")
    if report.failed:
        parts.append(f"{len(report.failed)} failed")
    return "  ".join(parts)


def gate_table(report: RolloutReport) -> str:
    """Times to each gate, in seconds."""
    header = ("GATE", "PASSED", "OF", "READY", "FIRST", "P50", "P95", "LAST")
    return aligned(header, [_gate_row(gate) for gate in report.gates])


def bound_line(report: RolloutReport) -> str:
    """The times of the first gate in multiples of what the links allow, or why that is not known; "" where no node
    needs a byte."""
    bound = report.bound
    if bound is None:
        return ""
    if bound.seconds is None:
        return f"T* is unknown: {bound.unknown}"
    parts = (f"{part.link} {human(part.rate)}/s ({part.source}): {part.seconds:.1f} s" for part in bound.parts)
    line = f"T* is {bound.seconds:.1f} s ({'; '.join(parts)})"
    multiples = (("half", bound.p50), ("95%", bound.p95), ("the last", bound.last))
    known = [f"{name} {multiple:.2f} T*" for name, multiple in multiples if multiple is not None]
    return f"{line}; nodes with all files after: {', '.join(known)}" if known else line


def node_table(nodes: Sequence[RolloutNode]) -> str:
    """The nodes, a line each."""
    header = ("NODE", "PHASE", "HAS", *(gate.upper() for gate in GATES), "RATE", "MIRRORS", "SEEDER", "PEERS", "NOTE")
    return aligned(header, [_node_row(node) for node in nodes])


def listed_first(view: RolloutView, most: int | None = MOST_NODES) -> list[RolloutNode]:
    """The nodes in the order in which they need attention, at most `most`."""
    rank = {phase: place for place, phase in enumerate(("failed", *PHASES[:-1]))}
    ordered = sorted(view.nodes, key=lambda node: (rank[node.phase], node.share, node.name))
    return ordered[:most]


def rollout_table(views: Sequence[RolloutView], reports: Sequence[RolloutReport]) -> str:
    """Roll-outs, a line each."""
    header = ("ID", "STATE", "REPO", "COMMIT", "NODES", "GATE", "PASSED", "P50", "LAST", "FAILED", "TIME")
    return aligned(header, [_rollout_row(view, report) for view, report in zip(views, reports, strict=True)])


def page(view: RolloutView, *, most: int | None = MOST_NODES) -> str:
    """The whole report."""
    report = rollout_report(view)
    blocks = [summary(view, report), gate_table(report), *filter(None, [bound_line(report)]), *_sources(report)]
    nodes = listed_first(view, most)
    if nodes:
        blocks.append(node_table(nodes))
    if len(nodes) < len(view.nodes):
        blocks.append(f"... and {len(view.nodes) - len(nodes)} more nodes (--all lists them)")
    blocks += [f"slow: {slow}" for slow in [", ".join(_slow(report))] if slow]
    if report.unlisted:
        blocks.append(f"unlisted: {', '.join(report.unlisted[:MOST_NODES])}")
    return "\n\n".join(blocks)


def _sources(report: RolloutReport) -> list[str]:
    if not report.received:
        return []
    parts = [f"{human(report.received)} received, {human(report.average)}/s on average"]
    parts.append(f"{human(report.origin_bytes)} from mirrors for a model of {human(report.model_bytes)}")
    return ["; ".join(parts)]


def _slow(report: RolloutReport) -> list[str]:
    return [
        f"{node.name} ({node.phase}{'' if node.seconds is None else f', {seconds(node.seconds)}'}"
        + (f": {node.why})" if node.why else ")")
        for node in report.slow
    ]


def _gate_row(gate: GateReport) -> tuple[str, ...]:
    counts = str(gate.passed), str(gate.nodes), f"{gate.ready_share:.0%}"
    return gate.gate, *counts, *map(seconds, (gate.first, gate.p50, gate.p95, gate.last))


def _node_row(node: RolloutNode) -> tuple[str, ...]:
    times = (seconds(node.gates[gate].seconds if gate in node.gates else None) for gate in GATES)
    sources = node.bytes.origin, node.bytes.seeder, node.bytes.peers
    return (
        node.name,
        node.phase,
        f"{node.share:.0%}" if node.total or node.gates else "-",
        *times,
        rate(node.rate) if node.rate else "-",
        *(human(size) if size else "-" for size in sources),
        _note(node),
    )


def _note(node: RolloutNode) -> str:
    if node.failure is not None:
        return f"{node.failure.message}; {node.failure.hint}" if node.failure.hint else node.failure.message
    failed = [f"{check.name}: {check.detail}" for check in node.preflight if not check.ok]
    return ", ".join(failed) or node.why or ("" if node.listed else "unlisted")


def _rollout_row(view: RolloutView, report: RolloutReport) -> tuple[str, ...]:
    gate = report.last_gate
    counts = str(gate.nodes), gate.gate, str(gate.passed), seconds(gate.p50), seconds(gate.last)
    commit, failed = view.spec.commit[:8], str(report.counts["failed"])
    return view.id, view.state, str(view.spec.repo), commit, *counts, failed, duration(view.elapsed)


def seconds(value: float | None) -> str:
    """`12.3 s`; `-` for None."""
    return "-" if value is None else f"{value:.1f} s"
