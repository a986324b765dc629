"""The time until every node is ready over the number of nodes, as JSON and as a picture.

The figures of one run of scripts/bench/swarm become *points*: contestant, number of nodes, seconds until the last node
was ready, and the same in multiples of T*, the lower bound of the links. A contestant that did not finish has a point
without a time, which is not drawn. Every point has its commit and date: points of several runs can stand in one file.
The page of the benchmark contains the same figures as a table between two markers.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scripts.bench.commands.curve import CONTESTANTS, PICTURE, ROOT

PAGE = ROOT / "docs/benchmarks/swarm.md"
_BEGIN, _END = "<!-- curve: begin -->\n", "<!-- curve: end -->\n"

_LABELS = {
    "ours": "p2pmodel",
    "aria2": "aria2",
    "libtorrent": "libtorrent (defaults)",
    "qbittorrent": "qBittorrent",
    "hf": "hf download",
}
_COLORS = {"ours": "#d62728", "aria2": "#1f77b4", "libtorrent": "#2ca02c", "qbittorrent": "#9467bd", "hf": "#7f7f7f"}


@dataclass(frozen=True, slots=True)
class Point:
    """The last node of `nodes`: ready after `seconds`, which is `last` times the bound. Medians of `runs` runs."""

    contestant: str
    nodes: int
    mbit: float
    runs: int
    seconds: float | None
    last: float | None
    commit: str
    date: str


def points_of(report: dict[str, Any], *, commit: str, date: str) -> list[Point]:
    """The points in a report of scripts/bench/swarm."""
    return [
        Point(
            contestant=row["contestant"],
            nodes=int(row["nodes"]),
            mbit=float(report["raw_mbit"]),
            runs=len(row["runs"]),
            seconds=_rounded(row["last_seconds"]),
            last=_rounded(row["last"]),
            commit=commit,
            date=date,
        )
        for row in report["results"]
    ]


def table(record: dict[str, Any]) -> str:
    """The points of a raw file as a Markdown table: a row per number of nodes, a column per contestant."""
    last = {(point["contestant"], point["nodes"]): point["last"] for point in record["points"]}
    counts = sorted({nodes for _, nodes in last})
    lines = [
        "| nodes | " + " | ".join(_LABELS[name] for name in CONTESTANTS) + " |",
        "|---" * (len(CONTESTANTS) + 1) + "|",
    ]
    for nodes in counts:
        cells = (last.get((name, nodes)) for name in CONTESTANTS)
        lines.append(f"| {nodes} | " + " | ".join("-" if cell is None else f"{cell:.2f}" for cell in cells) + " |")
    return "\n".join([*lines, "", f"Rig: {record['rig']}. {record.get('notes', '')}".strip(), ""])


def place(text: str, content: str) -> str:
    """A page with `content` between its markers."""
    head, _, rest = text.partition(_BEGIN)
    _, _, tail = rest.partition(_END)
    return f"{head}{_BEGIN}\n{content}\n{_END}{tail}"


def draw(record: dict[str, Any], picture: Path) -> None:
    """Draw the points of a raw file."""
    import matplotlib as mpl  # noqa: PLC0415 - only drawing needs it

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    points = [Point(**point) for point in record["points"]]
    figure, axes = plt.subplots(figsize=(8, 4.8), layout="constrained")
    for name in CONTESTANTS:
        line = sorted((p.nodes, p.last) for p in points if p.contestant == name and p.last is not None)
        if line:
            style = {"linewidth": 2.6, "zorder": 3} if name == "ours" else {"linewidth": 1.5}
            axes.plot(*zip(*line, strict=True), marker="o", color=_COLORS[name], label=_LABELS[name], **style)
    axes.axhline(1, color="black", linestyle=":", linewidth=1)
    counts = sorted({p.nodes for p in points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.set_yscale("log", base=2)
    highest = max(p.last for p in points if p.last is not None)
    ticks = [2**power for power in range(8) if 2**power < 2 * highest]
    axes.set_yticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.set(xlabel="nodes", ylabel="time until the last node is ready\n(1 = limit of the links)")
    axes.set_title(record["title"], fontsize=10)
    axes.legend(loc="upper left", frameon=False)
    # Without the version of matplotlib, equal figures make equal files.
    figure.savefig(picture, dpi=120, metadata={"Software": None})
    plt.close(figure)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="bench-curve-") as folder:
        figures = Path(folder) / "swarm.json"
        command = [sys.executable, "-m", "scripts.bench", "swarm", "--json", str(figures)]
        command += ["--nodes", *map(str, options.nodes), "--contestants", *options.contestants]
        command += ["--size-mb", str(options.size_mb), "--mbit", str(options.mbit), "--runs", str(options.runs)]
        command += ["--congestion", options.congestion, "--alone"]
        subprocess.run(command, cwd=ROOT, check=True)
        report = json.loads(figures.read_text(encoding="utf-8"))
    commit = _git("rev-parse", "--short", "HEAD")
    date = datetime.now(UTC).date().isoformat()
    points = points_of(report, commit=commit, date=date)
    bound = report["results"][0]["bound"]
    links = (
        f"{options.size_mb:g} MB over links of {options.mbit:g} Mbit/s, one seeder; limit of the links: {bound:.1f} s"
    )
    return {
        "title": f"{links}, medians of {options.runs}" if options.runs > 1 else links,
        "rig": report["rig"],
        "command": "scripts/bench/curve " + " ".join(options.words),
        "points": [asdict(point) for point in points],
    }


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def main(options: argparse.Namespace) -> None:
    """Measure and draw, or only draw."""
    if options.source:
        record = json.loads(options.source.read_text(encoding="utf-8"))
    else:
        try:
            record = _measure(options)
        except subprocess.CalledProcessError as error:
            sys.exit(f"scripts/bench/curve: {' '.join(map(str, error.cmd))} failed")
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    draw(record, options.png)
    if options.png == PICTURE:
        PAGE.write_text(place(PAGE.read_text(encoding="utf-8"), table(record)), encoding="utf-8")
