"""Whether a run kept its bounds, and its line in the report."""

from dataclasses import dataclass, replace

from scripts.soaking.bounds import Bounds, bounds
from scripts.soaking.run import Outcome
from scripts.soaking.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Verdict:
    """A run, what it may take, and what is wrong with it (nothing: it is right)."""

    scenario: Scenario
    outcome: Outcome
    bounds: Bounds
    size: int
    faults: tuple[str, ...]

    @property
    def copies(self) -> float:
        """Copies of the snapshot that the mirrors sent."""
        return self.outcome.mirror_bytes / self.size

    @property
    def ratio(self) -> float:
        """Seconds of the slowest peer by those that it may take."""
        return (self.outcome.slowest or float("inf")) / self.bounds.seconds

    def __str__(self) -> str:
        slowest = self.outcome.slowest
        took = "never" if slowest is None else f"{slowest:.1f} s"
        origin = f"{self.copies:.2f} of {self.bounds.copies:.2f} copies"
        end = "FAILED: " + "; ".join(self.faults) if self.faults else "ok"
        late = " (too late to matter)" if self.outcome.late_faults == len(self.scenario.faults) > 0 else ""
        return f"{self.scenario.name:>6}  {self.scenario}{late}: {took} of {self.bounds.seconds:.1f}, {origin}: {end}"


LENIENT = 3.0
"""Factor of the bound of time on a machine that is busy with other tests; the mirrors may send one more copy there."""


def judge(scenario: Scenario, outcome: Outcome, undisturbed: float, size: int, *, lenient: bool = False) -> Verdict:
    """The verdict on `outcome`, with the seconds of the undisturbed run of the same setting."""
    most = bounds(scenario, undisturbed, outcome.lacked)
    if lenient:
        most = replace(most, seconds=LENIENT * most.seconds, copies=most.copies + 1)
    wrong = list(outcome.complaints)
    if outcome.slowest is not None and outcome.slowest > most.seconds:
        wrong.append(f"it took {outcome.slowest:.1f} s, at most {most.seconds:.1f} are right")
    if outcome.mirror_bytes > most.copies * size:
        wrong.append(f"the mirrors sent {outcome.mirror_bytes / size:.2f} copies, {most.copies:.2f} are right")
    return Verdict(scenario, outcome, most, size, tuple(wrong))
