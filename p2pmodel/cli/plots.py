"""Pictures of measurements: the readiness of a roll-out, the benchmark of mirrors. The only module that imports
matplotlib.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from p2pmodel.coordinator.rollout.report import ready_curve, rollout_report
from p2pmodel.coordinator.rollout.rollout import RolloutView
from p2pmodel.origin.mirrors.throughput import BenchRun

NAMES = {"files": "files verified", "loaded": "model on the device", "answered": "first token"}


def draw_rollout(view: RolloutView, path: Path) -> None:
    """Draw the share of nodes behind each gate over time into `path`, a PNG or SVG by its suffix. Raises OSError."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    report = rollout_report(view)
    for gate in report.gates:
        curve = [*ready_curve(view, gate.gate), (view.elapsed, gate.passed / gate.nodes if gate.nodes else 0.0)]
        label = f"{NAMES[gate.gate]}: {gate.passed} of {gate.nodes}"
        axes.step([at for at, _ in curve], [share * 100 for _, share in curve], where="post", label=label)
    if view.enough_after is not None:
        axes.axvline(
            view.enough_after, color="black", linestyle="--", linewidth=1, label=f"{view.spec.min_ready} ready"
        )
    axes.set_xlabel("seconds since the roll-out began")
    axes.set_ylabel("nodes, %")
    axes.set_xlim(left=0)
    axes.set_ylim(0, 102)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="lower right")
    copies = "" if report.origin_copies is None else f", {report.origin_copies:.2f} copies from mirrors"
    axes.set_title(f"{view.spec.repo}@{view.spec.commit[:8]}, roll-out {view.id}{copies}", fontsize="medium")
    figure.savefig(path, format=path.suffix.lower().lstrip("."), dpi=110)


def draw_benchmark(found: Mapping[str, Any], runs: Mapping[str, Sequence[BenchRun]], path: Path) -> None:
    """Draw the report `found` into the PNG `path`: rates, latencies and each run. Raises OSError."""
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    names = [each["name"] for each in found["mirrors"]]
    rates, latency, each_run = figure.subplots(1, 3)
    _bars(rates, names, found["mirrors"], {"average": 1e-6, "p95": 1e-6, "peak": 1e-6}, "MB/s")
    if found["link_is"] == "stated":
        rates.axhline(found["link"] / 1e6, color="black", linestyle="--", linewidth=1)
    _bars(latency, names, found["mirrors"], {"connect": 1e3, "first_byte": 1e3}, "ms")
    for name in names:
        done = [(index, run.average) for index, run in enumerate(runs[name], 1) if run.average]
        each_run.plot([n for n, _ in done], [value / 1e6 for _, value in done], marker=".", label=name)
    each_run.set_xlabel("run")
    each_run.xaxis.get_major_locator().set_params(integer=True)
    each_run.set_ylabel("MB/s until verified")
    each_run.set_ylim(bottom=0)
    each_run.legend(fontsize="small")
    figure.suptitle(f"{found['repo']}: {found['file']} ({found['size'] / 1e6:.1f} MB)")
    figure.savefig(path, format="png", dpi=110)


def _bars(
    axes: Any, names: Sequence[str], mirrors: Sequence[Mapping[str, Any]], keys: Mapping[str, float], unit: str
) -> None:
    width = 0.8 / len(keys)
    for index, (key, scale) in enumerate(keys.items()):
        places = [place + (index - (len(keys) - 1) / 2) * width for place in range(len(names))]
        heights = [(each[key] or 0.0) * scale for each in mirrors]
        axes.bar(places, heights, width, label=key.replace("_", " "))
    labels = [f"{name}\n{each['failed']} of {each['runs']} failed" for name, each in zip(names, mirrors, strict=True)]
    axes.set_xticks(range(len(names)), labels, rotation=20, fontsize="small")
    axes.set_ylabel(unit)
    axes.legend(fontsize="small")
