"""Pages of the public hubs, as a browser shows their addresses: which repository, revision and file they are about."""

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

HOSTS = frozenset({"huggingface.co", "hf.co", "hf-mirror.com", "modelscope.cn", "modelscope.ai"})
"""Public hubs, with and without `www.` before the name."""

_KINDS = ("models", "datasets", "spaces")
_AT_A_REVISION = ("tree", "blob", "resolve", "raw", "commit", "commits", "blame", "edit")
_FILES = ("blob", "resolve", "raw", "blame", "edit")
_OTHER_TABS = ("discussions", "files", "summary", "feedback", "viewer", "settings", "file")


@dataclass(frozen=True, slots=True)
class HubPage:
    """`repo` with its kind, as in `datasets/org/name`. `revision` and `file`: those that the page shows, or ""."""

    repo: str
    revision: str = ""
    file: str = ""


def hub_page(text: str) -> HubPage | None:
    """The page at the address `text`; None for any other text."""
    try:
        parts = urlsplit(text)
        host = (parts.hostname or "").lower().removeprefix("www.")
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or host not in HOSTS or parts.username is not None:
        return None
    segments = [unquote(segment) for segment in parts.path.split("/") if segment]
    kind = f"{segments[0]}/" if segments and segments[0] in _KINDS[1:] else ""
    if segments and segments[0] in _KINDS:
        del segments[0]
    if not segments or segments[0] == "api":
        return None
    size = 1 if len(segments) == 1 or segments[1] in (*_AT_A_REVISION, *_OTHER_TABS) else 2
    repo, rest = kind + "/".join(segments[:size]), segments[size:]
    if not rest or rest[0] not in _AT_A_REVISION or host.startswith("modelscope"):
        return HubPage(repo)  # the revisions of ModelScope are not the hub's
    revision, path = _revision(rest[1:])
    return HubPage(repo, revision, "/".join(path) if rest[0] in _FILES else "")


def _revision(segments: list[str]) -> tuple[str, list[str]]:
    """The revision at the beginning of `segments`, of which `refs/pr/N` takes three, and the rest."""
    count = 3 if segments[:1] == ["refs"] else 1
    return "/".join(segments[:count]), segments[count:]
