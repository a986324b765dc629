"""The plan of a fetch or an update: as JSON, as a table, and as one line of text."""

from typing import Any

from p2pmodel.cli.terminal.table import aligned
from p2pmodel.core.sizes import counted, human
from p2pmodel.node.snapshot.update_plan import FilePlan, UpdatePlan

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
