"""The way of a model from nothing to its first answer: which phase it is in, and how far it has come."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from p2pmodel.core.progress.progress import Phase, Progress
from p2pmodel.errors import ModelLoading
from p2pmodel.loading.options import LoadProgress
from p2pmodel.node.reporter import FileList, Reporter

StartupPhase = Literal["finding", "transferring", "loading", "ready"]
"""`finding`: which commit, and from where; `transferring`: files arrive and are verified, and weights may go onto the
device meanwhile; `loading`: all files are verified, and the rest of the weights goes onto the device."""
PHASES: tuple[StartupPhase, ...] = ("finding", "transferring", "loading", "ready")


@dataclass(frozen=True, slots=True)
class TransferProgress:
    """The files of the model: `done` of `total` bytes are verified. `eta` is in seconds, None while unknown."""

    step: Phase
    done: int = 0
    total: int = 0
    rate: int = 0
    eta: float | None = None
    peers: int = 0
    waiting_for: str = ""


@dataclass(frozen=True, slots=True)
class WeightProgress:
    """The weights: `done` of `total` bytes are on the device."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class StartupView:
    """The startup at one moment. `seconds`: since the start, or until the model was ready."""

    model: str
    phase: StartupPhase
    seconds: float
    transfer: TransferProgress
    load: WeightProgress | None = None
    """None while nothing is known about it."""
    takes_images: bool = False
    """Known once it is ready."""


class Startup(Reporter):
    """The only owner of this state. Reports of a fetch advance it, and go on to `screen`.

    Phases go forwards only. Called on the event loop.
    """

    def __init__(self, model: str, screen: Reporter, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._model = model
        self._screen = screen
        self._clock = clock
        self._began = clock()
        self._reached: dict[StartupPhase, float] = {"finding": 0.0}
        self._transfer = TransferProgress("finding")
        self._load: WeightProgress | None = None
        self._takes_images = False

    def progress(self, progress: Progress) -> None:
        """The fetch has advanced."""
        self._screen.progress(progress)
        if progress.phase != "finding":
            self._enter("transferring")
        self._transfer = TransferProgress(
            progress.phase,
            progress.done,
            progress.total,
            progress.download_rate,
            progress.eta,
            progress.peers,
            progress.waiting_for,
        )

    def files(self, files: FileList) -> None:
        """Pass `files` on."""
        self._screen.files(files)

    @property
    def wants_files(self) -> bool:
        """Whether the screen shows the files."""
        return self._screen.wants_files

    def note(self, line: str) -> None:
        """A line for the user."""
        self._screen.note(line)

    def verified(self) -> None:
        """All files are verified; the rest of the weights goes onto the device."""
        self._enter("loading")

    def loading(self, progress: LoadProgress) -> None:
        """Weights go onto the device, maybe while files arrive."""
        if progress.total:
            self._load = WeightProgress(progress.loaded, progress.total)

    def ready(self, *, takes_images: bool) -> None:
        """The model answers from now on."""
        self._takes_images = takes_images
        self._enter("ready")

    @property
    def phase(self) -> StartupPhase:
        """The phase now."""
        return next(phase for phase in reversed(PHASES) if phase in self._reached)

    @property
    def reached(self) -> dict[StartupPhase, float]:
        """Seconds from the start to the beginning of each phase that has begun."""
        return dict(self._reached)

    def view(self) -> StartupView:
        """The state now."""
        seconds = self._reached.get("ready", self._elapsed())
        return StartupView(self._model, self.phase, round(seconds, 3), self._transfer, self._load, self._takes_images)

    def check_ready(self) -> None:
        """Raise ModelLoading, with how far it has come, unless the model is ready."""
        phase, transfer = self.phase, self._transfer
        if phase == "ready":
            return
        text = f"the model {self._model} is not ready: {phase}"
        if phase == "transferring" and transfer.total:
            text = f"{text}, {transfer.done * 100 // transfer.total} % of {transfer.total} bytes"
        raise ModelLoading(text, hint="GET /startupz shows the progress", retry_after=_retry_after(transfer.eta))

    def _enter(self, phase: StartupPhase) -> None:
        if PHASES.index(phase) > PHASES.index(self.phase):
            self._reached[phase] = self._elapsed()

    def _elapsed(self) -> float:
        return self._clock() - self._began


def _retry_after(eta: float | None) -> int:
    """Seconds until a client asks again: a tenth of the remaining time, from 1 to 30."""
    return 2 if eta is None else max(1, min(30, round(eta / 10)))
