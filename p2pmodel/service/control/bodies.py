"""The request bodies of the control API."""

from typing import Annotated, Literal

from pydantic import Base64Bytes, BaseModel, ConfigDict, Field

from p2pmodel.core.content.request_window import FileRange
from p2pmodel.core.progress.views import SERVING, EngineState
from p2pmodel.errors import InvalidInput
from p2pmodel.trust.signatures.statement import MAX_STATEMENT, MAX_STATEMENTS
from p2pmodel.trust.signatures.wire import MAX_SIGNATURE

MOST_PLACES = 1000
"""Places in one request; the pieces that come first are bounded besides."""

_Patterns = Annotated[list[Annotated[str, Field(max_length=1024)]], Field(max_length=1000)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class SignatureBody(_Body):
    """A signed statement: see docs/trust.md."""

    statement: str = Field(max_length=MAX_STATEMENT)
    signature: str = Field(max_length=MAX_SIGNATURE)


class StartBody(_Body):
    """The snapshot to download: a `target` (REPO[@REV], hf://..., URL of a .torrent, magnet) or a `torrent`."""

    target: str = Field(default="", max_length=8192)
    torrent: Base64Bytes | None = Field(default=None, description="A .torrent in base64, instead of target.")
    signatures: list[SignatureBody] = Field(
        default=[], max_length=MAX_STATEMENTS, description="Signed statements that came with the torrent."
    )
    revision: str | None = Field(
        default=None, max_length=255, description="Branch, tag, refs/pr/N, alias, range such as ^1.2, or commit."
    )
    include: _Patterns = []
    exclude: _Patterns = []
    peers: list[str] = Field(default=[], max_length=100, description="Peers to connect to, as ADDRESS:PORT.")
    names: list[str] = Field(default=[], max_length=10, description="Refs that will point at the commit.")
    fresh: bool = Field(
        default=False, description="Fail if no source answers, instead of taking the revision that is in the cache."
    )
    priority: int | None = Field(default=None, ge=-100, le=100, description="Queue priority; higher first (default 0).")


class ChangeBody(_Body):
    """The fields of a transfer that a client can change."""

    priority: int = Field(ge=-100, le=100, description="Queue priority; higher first.")


class PlaceBody(_Body):
    """Bytes of a file of the snapshot: [start, end)."""

    path: str = Field(max_length=4096)
    start: int = Field(ge=0, lt=1 << 53)
    end: int = Field(ge=0, lt=1 << 53)


class FirstBody(_Body):
    """The places of a transfer that a load waits for."""

    places: list[PlaceBody] = Field(
        max_length=MOST_PLACES, description="In the order in which they are needed. Repeat the request while you wait."
    )

    @property
    def ranges(self) -> tuple[FileRange, ...]:
        """The places."""
        return tuple(FileRange(each.path, each.start, each.end) for each in self.places)


class EngineBody(_Body):
    """The report of an inference engine."""

    ready: bool = Field(description="Whether the engine serves the model.")
    seconds: float | None = Field(
        default=None,
        gt=0,
        le=30 * 86400,
        description="Seconds after which the report expires unless renewed; absent: until the node restarts.",
    )
    state: Literal["loading", "loaded", "answered", "failed"] | None = Field(
        default=None,
        description="`loading` or `failed` while not ready; `loaded` (default), or `answered` after a first answer.",
    )

    @property
    def engine(self) -> EngineState:
        """What the engine reports. Raises InvalidInput if `ready` and `state` contradict each other."""
        state: EngineState = self.state or ("loaded" if self.ready else "none")
        if self.ready != (state in SERVING):
            raise InvalidInput(f"an engine in the state '{state}' is {'not ' if self.ready else ''}ready")
        return state


class LimitsBody(_Body):
    """Rate limits for all peers together, bytes/s; 0: no limit."""

    upload: int = Field(ge=0, lt=1 << 31)
    download: int = Field(ge=0, lt=1 << 31)
