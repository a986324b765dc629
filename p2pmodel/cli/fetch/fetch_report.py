"""The result of `p2pmodel fetch`, the same with and without a daemon, as JSON and as a line of text."""

import dataclasses
from pathlib import Path
from typing import Any

from p2pmodel.core.progress.progress import Progress, Timings
from p2pmodel.core.sizes import human


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
