"""What inference engines report of the model of one transfer."""

import asyncio
import time
from collections.abc import Callable

from p2pmodel.core import notes
from p2pmodel.core.content.names import RepoId
from p2pmodel.core.progress.views import SERVING, EngineState, GateTimes
from p2pmodel.errors import Conflict


def incomplete(repo: RepoId) -> Conflict:
    """The error of a report about a model that is not complete."""
    return Conflict(
        f"{repo} is not complete here: no engine can serve it", hint="report the engine once the transfer is complete"
    )


def engine_note(repo: RepoId, commit: str, state: EngineState) -> notes.Note:
    """The event for the log when an engine reports another state."""
    return notes.info("engine_reported", f"engine of {repo}: {state}", repo=str(repo), commit=commit, state=state)


class EngineReports:
    """The last report, until it lapses, and how far any engine has come with these files. `on_lapse` is called when a
    report lapses."""

    def __init__(self, on_lapse: Callable[[], None], *, clock: Callable[[], float] = time.time) -> None:
        self._on_lapse = on_lapse
        self._clock = clock
        self._lapses: asyncio.TimerHandle | None = None
        self.state: EngineState = "none"
        self.reached: EngineState = "none"
        """`loaded` or `answered` once an engine has reported it, also after that engine has ended."""
        self.gates = GateTimes()

    def complete(self) -> None:
        """The files have just become complete: the first gate."""
        self.gates = GateTimes(files=self._clock())

    def take(self, state: EngineState, seconds: float | None = None) -> None:
        """Record a report; after `seconds` it no longer counts (None: no limit)."""
        if self._lapses is not None:
            self._lapses.cancel()
            self._lapses = None
        self.state = state
        if state in SERVING and self.reached != SERVING[-1]:
            self.reached = state
        self.gates = self.gates.after(state, self._clock())
        if state != "none" and seconds is not None:
            self._lapses = asyncio.get_running_loop().call_later(seconds, self._lapse)

    def forget(self) -> None:
        """The files are to change: what was reported was another model."""
        self.take("none")
        self.reached = "none"
        self.gates = GateTimes()

    def _lapse(self) -> None:
        self.take("none")
        self._on_lapse()
