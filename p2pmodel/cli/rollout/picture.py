"""The curve of readiness of a roll-out as a picture. Imports matplotlib."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from p2pmodel.coordinator.rollout.report import ready_curve, rollout_report
from p2pmodel.coordinator.rollout.rollout import RolloutView

NAMES = {"files": "files verified", "loaded": "model on the device", "answered": "first token"}


def draw(view: RolloutView, path: Path) -> None:
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
