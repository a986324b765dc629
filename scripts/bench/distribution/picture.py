"""The picture of a measurement: when each node was complete, and the rates on its link."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.bench.distribution.run import Timeline


@dataclass(frozen=True, slots=True)
class Panel:
    """The last run of one contestant on one cluster. `bound` in seconds, `size` in bytes."""

    title: str
    ready: Sequence[float]
    nodes: int
    bound: float
    timeline: Timeline
    sources: tuple[str, ...]


def draw(panels: Sequence[Panel], path: Path) -> None:
    """Write the picture, a row for each panel, to `path`."""
    import matplotlib as mpl  # noqa: PLC0415 - only --plot needs it

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(len(panels), 3, figsize=(16, 3.6 * len(panels)), squeeze=False, layout="constrained")
    for row, panel in zip(axes, panels, strict=True):
        _curve(row[0], panel)
        _rates(row[1], panel, "down")
        _rates(row[2], panel, "up")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _curve(axes: Any, panel: Panel) -> None:
    shares = [(number + 1) / panel.nodes for number in range(len(panel.ready))]
    axes.step([0.0, *panel.ready], [0.0, *shares], where="post")
    axes.axvline(panel.bound, color="black", linestyle=":", label=f"T* = {panel.bound:.1f} s")
    axes.set(title=panel.title, xlabel="seconds from the gate", ylabel="nodes complete", ylim=(0, 1.05), xlim=(0, None))
    axes.legend(loc="upper left")


def _rates(axes: Any, panel: Panel, direction: str) -> None:
    column = ("up", "down").index(direction)
    times, traffic = panel.timeline.times, panel.timeline.traffic
    middles = [(a + b) / 2 for a, b in itertools.pairwise(times)]
    for name in traffic[-1]:
        if not (name.startswith("peer") or (name in panel.sources and direction == "up")):
            continue
        points = zip(times, (sample[name][column] for sample in traffic), strict=True)
        rates = [(b - a) * 8 / 1e6 / max(t - s, 1e-3) for (s, a), (t, b) in itertools.pairwise(points)]
        style = {"color": "red", "label": name} if name == "seeder" else {"color": "orange", "label": name}
        axes.plot(middles, rates, **(style if name in panel.sources else {"linewidth": 0.7, "alpha": 0.6}))
    axes.set(title=f"{direction}, each host", xlabel="seconds from the gate", ylabel="Mbit/s", ylim=(0, None))
    if direction == "up":
        axes.legend(loc="center right")
