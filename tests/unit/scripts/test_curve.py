"""The time-to-ready curve: points from a report of the swarm rig, the table in the page, and the picture."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from scripts.bench.commands.curve import PICTURE, RAW, ROOT
from scripts.bench.distribution.curve import PAGE, place, points_of, table


def row(contestant: str, nodes: int, last: float | None) -> dict[str, Any]:
    seconds = None if last is None else 10 * last
    return {"contestant": contestant, "nodes": float(nodes), "last": last, "last_seconds": seconds, "runs": [{}, {}]}


def test_points_have_the_figures_their_commit_and_date() -> None:
    report = {"raw_mbit": 50, "results": [row("ours", 8, 1.23456), row("hf", 8, None)]}
    ours, hf = points_of(report, commit="abc", date="2026-01-01")
    assert (ours.contestant, ours.nodes, ours.last, ours.seconds, ours.runs) == ("ours", 8, 1.235, 12.346, 2)
    assert (ours.mbit, ours.commit, ours.date) == (50.0, "abc", "2026-01-01")
    assert hf.last is None
    assert hf.seconds is None


def test_the_table_has_a_dash_for_what_did_not_finish() -> None:
    points = [{"contestant": "ours", "nodes": 8, "last": 1.1}, {"contestant": "hf", "nodes": 8, "last": None}]
    lines = table({"points": points, "rig": "a machine"}).splitlines()
    assert lines[2] == "| 8 | 1.10 | - | - | - | - |"
    assert lines[-1] == "Rig: a machine."


def test_only_the_text_between_the_markers_changes() -> None:
    page = "before\n<!-- curve: begin -->\nold\n<!-- curve: end -->\nafter\n"
    assert place(page, "new\n") == "before\n<!-- curve: begin -->\n\nnew\n\n<!-- curve: end -->\nafter\n"


def test_the_page_shows_the_raw_figures() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert place(page, table(json.loads(RAW.read_text(encoding="utf-8")))) == page


def test_drawing_writes_the_picture_alone(tmp_path: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    # In a process of its own: matplotlib keeps the files of its fonts open.
    command = [sys.executable, "-m", "scripts.bench", "curve", "--from", str(RAW), "--png", str(tmp_path / "curve.png")]
    subprocess.run(command, check=True, cwd=ROOT)
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert PICTURE.exists()
    assert PAGE.read_text(encoding="utf-8") == page
