"""The summary of a soak: counts, and the scenarios that came closest to their bounds."""

from collections import Counter
from collections.abc import Sequence

from scripts.soaking.judgement import Verdict

_WORST = 5


def summary(verdicts: Sequence[Verdict], repeated: Sequence[Verdict]) -> str:
    """Some lines of text."""
    disturbed = [verdict for verdict in verdicts if verdict.scenario.faults]
    wrong = [verdict for verdict in verdicts if verdict.faults]
    lines = [
        "",
        f"{len(disturbed)} scenarios, {len(verdicts) - len(disturbed)} undisturbed runs",
        f"{len(wrong)} failed, {len(repeated)} were right when they were repeated",
        "topologies: " + _counts(Counter(verdict.scenario.setting.topology for verdict in disturbed)),
        "begins: " + _counts(Counter(verdict.scenario.setting.begin for verdict in disturbed)),
        "faults: " + _counts(Counter(f"{f.role} {f.kind}" for verdict in disturbed for f in verdict.scenario.faults)),
    ]
    timed = [verdict for verdict in disturbed if verdict.outcome.slowest is not None]
    timed.sort(key=lambda verdict: -verdict.ratio)
    lines += ["closest to their bounds of time:", *map(str, timed[:_WORST])]
    by_copies = sorted(disturbed, key=lambda verdict: -verdict.copies / max(verdict.bounds.copies, 0.01))
    lines += ["closest to their bounds of origin bytes:", *map(str, by_copies[:_WORST])]
    if wrong:
        lines += ["failed:", *map(str, wrong)]
    return "\n".join(lines)


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(counter.items()))
