"""Reports of a fetch or an update, with and without a daemon: the plan and the result, as JSON and as text."""

import dataclasses
from pathlib import Path
from typing import Any

from p2pmodel.cli.terminal.output import aligned
from p2pmodel.core.progress.progress import Progress, Timings
from p2pmodel.core.sizes import counted, human
from p2pmodel.node.snapshot.update_plan import FilePlan, UpdatePlan


@dataclasses.dataclass(frozen=True, slots=True)
class FetchReport:
    """A complete snapshot: its path, size in bytes, timings in seconds, bytes by source (`progress`), and
    the voucher of its files."""

    path: Path
    repo: str
    commit: str
    size: int
    timings: Timings
    progress: Progress
    vouched_by: str

    def plain(self) -> dict[str, Any]:
        """As one JSON object."""
        progress = dataclasses.asdict(self.progress)
        shown = ("from_cache", "from_peers", "from_mirrors", "from_other_zones", "exception", "unreachable")
        sources = {key: progress[key] for key in shown}
        return {
            "path": str(self.path),
            "repo": self.repo,
            "commit": self.commit,
            "size": self.size,
            "vouched_by": self.vouched_by,
            "seconds": round(self.timings.total, 3),
            "find_seconds": round(self.timings.find, 3),
            "download_seconds": round(self.timings.download, 3),
            "verify_seconds": round(self.timings.verify, 3),
        } | sources

    def words(self) -> str:
        """As one line of text."""
        timings, progress = self.timings, self.progress
        came = progress.from_peers + progress.from_mirrors
        if not came:
            return f"{human(progress.total)} were in the cache already, verified in {timings.verify:.2f} s"
        line = f"downloaded {human(came)} in {timings.download:.2f} s, then verified in {timings.verify:.2f} s"
        return f"{line}; {progress.exception}" if progress.exception else line


HEADER = ("DOWNLOAD", "REUSED", "ADOPTED", "RESUMED", "BEFORE", "AFTER", "FILE")


def plain_plan(plan: UpdatePlan) -> dict[str, Any]:
    """As one JSON object. `files` has those that differ from the previous revision, or are not whole here."""
    return {
        "repo": str(plan.manifest.repo),
        "commit": plan.manifest.commit,
        "before": plan.previous,
        "size": plan.total(lambda file: file.size),
        "adopted": plan.total(lambda file: file.adopted),
        "resumed": plan.total(lambda file: file.resumed),
        "reused": plan.total(lambda file: file.reused),
        "download": plan.download,
        "proved": plan.proved,
        "at_most": plan.at_most,
        "files": [_plain(file) for file in plan.shown],
    }


def plan_table(plan: UpdatePlan) -> str:
    """A line for each file that is shown, and their totals; nothing if there is none."""
    if not plan.shown:
        return ""
    total = ("download", "reused", "adopted", "resumed", "before", "size")
    sums = [human(sum(getattr(file, name) for file in plan.shown)) for name in total]
    rows = [_row(file) for file in plan.shown]
    return aligned(HEADER, [*rows, (*sums, "total")] if len(rows) > 1 else rows) + "\n"


def plan_words(plan: UpdatePlan) -> str:
    """As one line of text."""
    count = sum(1 for file in plan.files if file.download)
    amount = f"at most {human(plan.download)}" if plan.at_most else human(plan.download)
    line = f"{counted(count, 'file')}, {amount} to download of {plan.manifest.repo}@{plan.manifest.commit}"
    if reused := plan.total(lambda file: file.reused):
        line += f"; {human(reused)} are in other revisions" + ("" if plan.proved else ", as far as samples show")
    return line


def _plain(file: FilePlan) -> dict[str, Any]:
    return {
        "path": file.path,
        "before": file.before,
        "size": file.size,
        "adopted": file.adopted,
        "resumed": file.resumed,
        "reused": file.reused,
        "download": file.download,
    }


def _row(file: FilePlan) -> tuple[str, ...]:
    sizes = (file.download, file.reused, file.adopted, file.resumed, file.before, file.size)
    return (*(human(size) if size else "-" for size in sizes), file.path)
