"""Statistics over several runs of one download: latency, total time, average, peak and 95th percentile. Pure.

Times are seconds, rates bytes a second. A run's rates are means over its whole seconds, from the start to the verified
end. So a burst from a buffer is no peak.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

WINDOW = 1.0


@dataclass(frozen=True, slots=True)
class BenchRun:
    """One download of a file from one mirror. `seconds` is None if it failed, and `error` says why.

    `seconds`: from the start until the hash was verified. `connect`, `first_byte`: means over its connections and
    requests, None without one. `retried`: whether a request failed and was repeated.
    """

    size: int
    seconds: float | None
    connect: float | None
    first_byte: float | None
    rates: tuple[float, ...] = ()
    retried: bool = False
    error: str = ""
    received: int = 0
    """Bytes that came, also in a failed run."""

    @property
    def average(self) -> float | None:
        """Bytes a second until verified; None for a failed run."""
        return self.size / self.seconds if self.seconds else None


@dataclass(frozen=True, slots=True)
class BenchSummary:
    """All runs of one mirror; None for a figure of no run. `failed` and `retried` are counts of `runs`."""

    runs: int
    failed: int
    retried: int
    connect: float | None
    first_byte: float | None
    complete: float | None
    average: float | None
    peak: float | None
    p95: float | None
    error: str
    """Why the last failed run failed."""

    def utilisation(self, link: float | None) -> float | None:
        """The average's share of a link of `link` bytes a second."""
        return self.average / link if self.average is not None and link else None


def window_rates(received: Iterable[tuple[float, int]], seconds: float, window: float = WINDOW) -> tuple[float, ...]:
    """Rates over consecutive windows of a run of `seconds`. `received`: (seconds since the start, bytes).

    A rest shorter than half a window belongs to the last window; a longer one is a window of its own.
    """
    if seconds <= 0:
        return ()
    count = max(1, math.floor(seconds / window + 0.5))
    sums = [0] * count
    for at, size in received:
        sums[max(0, min(count - 1, int(at / window)))] += size
    last = seconds - window * (count - 1)
    return tuple(total / (window if index < count - 1 else last) for index, total in enumerate(sums))


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The nearest-rank percentile of `values`; None without a value."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def summarize(runs: Sequence[BenchRun]) -> BenchSummary:
    """Statistics over `runs`."""
    done = [run for run in runs if run.seconds is not None]
    rates = [rate for run in done for rate in run.rates]
    spent = sum(run.seconds or 0.0 for run in done)
    return BenchSummary(
        runs=len(runs),
        failed=len(runs) - len(done),
        retried=sum(run.retried for run in done),
        connect=_mean(run.connect for run in runs),
        first_byte=_mean(run.first_byte for run in runs),
        complete=_mean(run.seconds for run in done),
        average=sum(run.size for run in done) / spent if spent > 0 else None,
        peak=max(rates, default=None),
        p95=percentile(rates, 95),
        error=next((run.error for run in reversed(runs) if run.seconds is None), ""),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
