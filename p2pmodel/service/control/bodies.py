"""What clients of the control API send."""

from typing import Annotated

from pydantic import Base64Bytes, BaseModel, ConfigDict, Field

_Patterns = Annotated[list[Annotated[str, Field(max_length=1024)]], Field(max_length=1000)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class StartBody(_Body):
    """What to bring here: a `target` (REPO[@REV], hf://..., the URL of a .torrent, a magnet), or a `torrent`."""

    target: str = Field(default="", max_length=8192)
    torrent: Base64Bytes | None = Field(default=None, description="A .torrent, in base64; then target is left out.")
    revision: str | None = Field(default=None, max_length=255)
    include: _Patterns = []
    exclude: _Patterns = []
    peers: list[str] = Field(default=[], max_length=100, description="ADDRESS:PORT of peers to connect to.")
    priority: int | None = Field(default=None, ge=-100, le=100, description="Higher goes first; 0 unless given.")


class ChangeBody(_Body):
    """What to change of a transfer."""

    priority: int = Field(ge=-100, le=100, description="Higher goes first.")


class EngineBody(_Body):
    """What an inference engine says of itself."""

    ready: bool = Field(description="Whether it has the model up.")
    seconds: float | None = Field(
        default=None,
        gt=0,
        le=30 * 86400,
        description="For how long that is believed, unless it is said again; left out: until the node starts anew.",
    )


class LimitsBody(_Body):
    """Bytes a second to and from all peers together; 0: no limit."""

    upload: int = Field(ge=0, lt=1 << 31)
    download: int = Field(ge=0, lt=1 << 31)
