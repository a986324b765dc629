"""`p2pmodel mirrors bench`: measure each mirror with real downloads, as a table, CSV, JSON or plot."""

import csv
import json
from collections import Counter
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import click

from p2pmodel.cli import options
from p2pmodel.cli.option_types import Count, Number, PathName
from p2pmodel.cli.signals import run_interruptible
from p2pmodel.cli.terminal.output import aligned, echo, milliseconds, rate
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.names import Reference
from p2pmodel.core.extras import check_extra
from p2pmodel.core.sizes import human
from p2pmodel.errors import InvalidInput, Unavailable
from p2pmodel.node.measure.bench import MirrorBench, MirrorBenchResult, online
from p2pmodel.origin.mirrors.throughput import BenchRun, BenchSummary, summarize
from p2pmodel.os_errors import translate

HEADER = ("MIRROR", "CONNECT", "FIRST BYTE", "COMPLETE", "AVERAGE", "PEAK", "P95", "OF LINK", "FAILED", "RETRIED")


@click.command()
@options.reference
@click.option("--runs", type=Count(1, 100_000), default=100, show_default=True, help="Downloads per mirror.")
@click.option("--file", "path", metavar="PATH", help="File of the repository to download (default: the largest).")
@click.option(
    "--link-mbps",
    type=Number(min=0, min_open=True),
    metavar="MB/S",
    help="Capacity of the link, MB/s (default: the best rate measured).",
)
@click.option(
    "--csv",
    "csv_path",
    type=PathName(allow_dash=True),
    help="File for the table as CSV, - for stdout.",
)
@click.option("--plot", type=PathName(), metavar="FILE.png", help="PNG file for a plot (needs p2pmodel[plot]).")
@options.endpoint
@options.common
def bench(
    *,
    settings: Settings,
    ref: Reference,
    runs: int,
    path: str | None,
    link_mbps: float | None,
    csv_path: Path | None,
    plot: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Download one file from each mirror separately, repeatedly, and print the measured times and rates.

    The complete time is from the request to the verified hash. Rates are means over whole seconds; P95 is the rate
    that 95 % of the seconds do not exceed. A run without progress for 10 s fails; after only failed
    first runs without a byte a mirror gets no further runs. The downloads are discarded.
    """
    online(settings)
    to_stdout = csv_path is not None and str(csv_path) == "-"
    if to_stdout and as_json:
        raise InvalidInput("--json and --csv - both write to stdout", hint="name a file: --csv bench.csv")
    for output in (None if to_stdout else csv_path, plot):
        options.check_output(output)
    if plot:
        check_plot(plot)
    bench = MirrorBench(settings, _BenchLines(runs, quiet=quiet))
    benched = run_interruptible(bench.run(ref, runs=runs, path=path), interrupted="interrupted; nothing was kept")
    found = report(benched, link_mbps * 1e6 if link_mbps else None)
    _write(found, benched, csv_path=csv_path, plot=plot, as_json=as_json)
    if all(not each["runs"] or each["failed"] == each["runs"] for each in found["mirrors"]):
        raise Unavailable("every run failed", hint="see the reasons below the table")


class _BenchLines:
    """Prints the runs as they end, and notes, unless `quiet`."""

    def __init__(self, runs: int, *, quiet: bool) -> None:
        self._runs = runs
        self._quiet = quiet
        self._counts: Counter[str] = Counter()

    def run_ended(self, mirror: str, run: BenchRun) -> None:
        self._counts[mirror] += 1
        self.note(f"run {self._counts[mirror]}/{self._runs} of {mirror}: {_words(run)}")

    def note(self, line: str) -> None:
        if not self._quiet:
            echo(line, err=True)


def report(benched: MirrorBenchResult, link: float | None) -> dict[str, Any]:
    """All figures, in seconds and bytes/s. `link`: capacity in bytes/s, None for the best rate measured."""
    summaries = {name: summarize(runs) for name, runs in benched.runs.items()}
    known = link or max((s.peak for s in summaries.values() if s.peak), default=None)
    return {
        "repo": str(benched.manifest.repo),
        "commit": benched.manifest.commit,
        "file": benched.file.path,
        "size": benched.file.size,
        "link": known,
        "link_is": "stated" if link else "the best rate measured",
        "mirrors": [_plain(name, benched.endpoints[name], summary, known) for name, summary in summaries.items()],
    }


def _plain(name: str, endpoint: str, summary: BenchSummary, link: float | None) -> dict[str, Any]:
    return {
        "name": name,
        "endpoint": endpoint,
        "runs": summary.runs,
        "failed": summary.failed,
        "retried": summary.retried,
        "connect": summary.connect,
        "first_byte": summary.first_byte,
        "complete": summary.complete,
        "average": summary.average,
        "peak": summary.peak,
        "p95": summary.p95,
        "utilisation": summary.utilisation(link),
        "error": summary.error,
    }


def table(found: Mapping[str, Any]) -> str:
    """A report as a text table."""
    rows = [_row(each) for each in found["mirrors"]]
    about = f"{found['file']} of {found['repo']}@{found['commit'][:12]}, {human(found['size'])}"
    link = f"link: {rate(found['link'])} ({found['link_is']})"
    failures = [f"{each['name']} failed: {each['error']}" for each in found["mirrors"] if each["error"]]
    return "\n".join([about, aligned(HEADER, rows), link, *failures])


def _row(each: Mapping[str, Any]) -> tuple[str, ...]:
    complete = "-" if each["complete"] is None else f"{each['complete']:.2f} s"
    share = "-" if each["utilisation"] is None else f"{each['utilisation']:.0%}"
    latency = milliseconds(each["connect"]), milliseconds(each["first_byte"])
    rates = rate(each["average"]), rate(each["peak"]), rate(each["p95"])
    counts = f"{each['failed']} of {each['runs']}", f"{each['retried']} of {each['runs']}"
    return each["name"], *latency, complete, *rates, share, *counts


def as_csv(found: Mapping[str, Any]) -> str:
    """A report as CSV: seconds, bytes/s, and the link capacity for the utilisation."""
    text = StringIO()
    rows = [each | {"link": found["link"], "link_is": found["link_is"]} for each in found["mirrors"]]
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _write(
    found: dict[str, Any], benched: MirrorBenchResult, *, csv_path: Path | None, plot: Path | None, as_json: bool
) -> None:
    if csv_path is not None and str(csv_path) == "-":
        echo(as_csv(found), nl=False)
    elif as_json:
        echo(json.dumps(found))
    else:
        echo(table(found))
    try:
        if csv_path is not None and str(csv_path) != "-":
            csv_path.write_text(as_csv(found), encoding="utf-8")
        if plot:
            from p2pmodel.cli.plots import draw_benchmark  # noqa: PLC0415

            draw_benchmark(found, benched.runs, plot)
    except OSError as error:
        raise translate(error) from None


def check_plot(plot: Path) -> None:
    """Raise InvalidInput unless `plot` ends in .png and matplotlib is installed."""
    if plot.suffix.lower() != ".png":
        raise InvalidInput("--plot writes a PNG", hint="give a file name that ends in .png")
    check_extra("plot", "--plot")


def _words(run: BenchRun) -> str:
    if run.seconds is None:
        return f"failed: {run.error}"
    return f"{run.seconds:.2f} s, {rate(run.average)}{', after a retry' if run.retried else ''}"
