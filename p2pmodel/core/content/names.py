"""Repository ids, revisions and references, as huggingface_hub accepts and stores them; patterns of repositories.

The address of a page at a public hub is a reference, too.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from urllib.parse import unquote, urlsplit

from p2pmodel.errors import InvalidInput

COMMIT = re.compile(r"[0-9a-f]{40}")
DEFAULT_REVISION = "main"

_SEGMENT = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?")
# A ref as git allows it, except those that would leave refs/ or break a URL.
_REVISION = re.compile(
    r"(?!.*(?:\.\.|//|@\{|\.lock(?:/|$)))[^\s\x00-\x1f\x7f~^:?*\[\\%#/.-][^\s\x00-\x1f\x7f~^:?*\[\\%#]{0,254}"
)
_RANGE = re.compile(r"[\^~]v?\d{1,9}(?:\.\d{1,9}){0,2}(?:-[0-9A-Za-z.-]{1,64})?")
_VERSION = re.compile(r"v?\d{1,9}\.\d{1,9}\.\d{1,9}(?:-[0-9A-Za-z.-]{1,64})?")
_ABBREVIATED = re.compile(r"[0-9a-f]{7,39}")
_NODE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
_MAX_ID = 96
_HINT = "write ORG/NAME, ORG/NAME@REVISION or hf://ORG/NAME@REVISION"


MODELS, DATASETS, SPACES = "models", "datasets", "spaces"
KINDS = (MODELS, DATASETS, SPACES)
"""Kinds of repositories, as the hub's API and cache name them."""


@dataclass(frozen=True, slots=True, order=True)
class RepoId:
    """A repository's id: of a model `name` or `organisation/name`, at most 96 characters (hub rule); of a dataset or
    space the same after `datasets/` or `spaces/`, as in the hub's URLs. No organisation has these names."""

    value: str

    def __post_init__(self) -> None:
        name = self.name
        segments = name.split("/")
        plain = all(_SEGMENT.fullmatch(s) and "--" not in s and ".." not in s for s in segments)
        if not plain or not 1 <= len(segments) <= 2 or len(name) > _MAX_ID or name.endswith(".git") or name in KINDS:
            raise InvalidInput(f"'{printable(self.value)}' is not a repository id", hint=_HINT)

    def __str__(self) -> str:
        return self.value

    @classmethod
    def of_kind(cls, kind: str, name: str) -> "RepoId":
        """The id of the repository `name` of a kind in KINDS. Raises InvalidInput."""
        return cls(name if kind == MODELS else f"{kind}/{name}")

    @property
    def kind(self) -> str:
        """One of KINDS."""
        first, slash, _ = self.value.partition("/")
        return first if slash and first in (DATASETS, SPACES) else MODELS

    @property
    def name(self) -> str:
        """The id without its kind: what the hub's API calls the id."""
        return self.value if self.kind == MODELS else self.value.partition("/")[2]

    @property
    def api(self) -> str:
        """Its path below `/api/` of a hub."""
        return f"{self.kind}/{self.name}"

    def is_spelling_of(self, other: "RepoId") -> bool:
        """Whether the hub takes both for one repository: it does not distinguish upper and lower case."""
        return self.folded == other.folded

    @property
    def folded(self) -> str:
        """The same for all spellings of one repository."""
        return self.value.lower()

    @property
    def cache_folder(self) -> str:
        """Folder of this repository in the hub cache: `models--org--name`."""
        return f"{self.kind}--{self.name.replace('/', '--')}"

    @classmethod
    def from_cache_folder(cls, folder: str) -> "RepoId":
        """Inverse of `cache_folder`. Raises InvalidInput for another kind of folder."""
        kind, _, rest = folder.partition("--")
        if kind not in KINDS or not rest:
            raise InvalidInput(f"'{printable(folder)}' is not a repository's folder of a Hugging Face cache")
        return cls.of_kind(kind, rest.replace("--", "/"))


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """A repository at a branch, tag, `refs/pr/N` or commit."""

    repo: RepoId
    revision: str = DEFAULT_REVISION

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Raise InvalidInput for a revision that cannot be one."""
        check_revision(self.revision)

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}"

    @property
    def pinned(self) -> bool:
        """Whether the revision is a full commit, which never changes its meaning."""
        return is_commit(self.revision)

    @classmethod
    def parse(cls, text: str, *, revision: str | None = None, ranges: bool = False) -> "Reference":
        """Parse `REPO`, `REPO@REV`, `hf://[models/]REPO[@REV]`, with `datasets/` or `spaces/` before the name of these,
        or the address of its page at a public hub; `revision` is the `--revision` flag. `ranges`: the revision may be a
        range of versions.

        Raises InvalidInput for other text, and if the flag contradicts the `@REV`.
        """
        page = hub_page(text)
        if page is not None:
            text = f"{page.repo}@{page.revision}" if page.revision else page.repo
        rest = text.removeprefix("hf://")
        if rest != text:
            rest = rest.removeprefix("models/")
        name, at, inline = rest.partition("@")
        if at and revision is not None and inline != revision:
            raise InvalidInput(
                f"'{printable(text)}' and --revision {printable(revision)} disagree",
                hint="give the revision once",
            )
        if at and not inline:
            raise InvalidInput(f"'{printable(text)}' has an empty revision", hint=_HINT)
        if revision == "":
            raise InvalidInput("--revision is empty", hint="give a revision, or leave it out for the default branch")
        repo, revision = RepoId(name), inline or revision or DEFAULT_REVISION
        return reference(repo, revision) if ranges else cls(repo, revision)


@dataclass(frozen=True, slots=True)
class VersionRange(Reference):
    """A repository at the highest version in a range: `^1.2` or `~1.2.3`. A coordinator says which tag that is."""

    def check(self) -> None:
        """Raise InvalidInput for a revision that is not a range."""
        if not is_range(self.revision):
            raise InvalidInput(f"'{printable(self.revision)}' is not a range of versions", hint="write ^1.2 or ~1.2")


def reference(repo: RepoId, revision: str) -> Reference:
    """The reference with a revision or a range of versions. Raises InvalidInput."""
    return VersionRange(repo, revision) if is_range(revision) else Reference(repo, revision)


def is_range(revision: str) -> bool:
    """Whether `revision` is a range of versions."""
    return _RANGE.fullmatch(revision) is not None


def is_version(name: str) -> bool:
    """Whether a revision name is a whole version: `1.2.3`, `v1.2.3` or `v1.2.3-rc.1`."""
    return _VERSION.fullmatch(name) is not None and _REVISION.fullmatch(name) is not None


def is_commit(revision: str) -> bool:
    """Whether `revision` is a full 40-hex commit id."""
    return COMMIT.fullmatch(revision) is not None


def abbreviates(revision: str) -> bool:
    """Whether `revision` may be the beginning of a commit: 7 hex digits or more, as git and the hub show them."""
    return _ABBREVIATED.fullmatch(revision) is not None


def one_commit(what: str, commits: Iterable[str]) -> str:
    """The only one of `commits`, at least one, that `what` means. Raises InvalidInput for several."""
    first, *others = sorted(commits)
    if others:
        raise InvalidInput(
            f"{what} is ambiguous: it may be {', '.join((first, *others))}", hint="write more digits of the commit"
        )
    return first


def check_revision(revision: str) -> str:
    """Return `revision` if it is safe as a git ref, a file below refs/ and a URL part; else InvalidInput."""
    safe = _REVISION.fullmatch(revision) and revision.isprintable()
    if is_range(revision):
        raise InvalidInput(
            f"{revision} is a range of versions, not a revision",
            hint="'p2pmodel fetch' takes ranges; write the tag here",
        )
    if not safe or revision.endswith(("/", ".")) or "/." in revision:
        raise InvalidInput(
            f"'{printable(revision)}' is not a revision",
            hint="use a branch, a tag, refs/pr/N or a 40-hex commit",
        )
    return revision


def check_node_name(name: str) -> str:
    """Return the name of a node, or raise InvalidInput."""
    if not _NODE.fullmatch(name):
        raise InvalidInput(
            f"'{printable(name, 70)}' is not the name of a node",
            hint="use 1 to 64 letters, digits, '.', '_' or '-', as in a host name",
        )
    return name


def check_name(name: str) -> str:
    """Return `name` if it can be a ref that points at a commit; else InvalidInput."""
    if is_commit(name):
        raise InvalidInput(f"{name} is a commit, not a name for one", hint="use a name such as main or v1.0")
    return check_revision(name)


def printable(text: str, limit: int = 120) -> str:
    """`text` for a one-line message: without control characters, at most `limit` characters."""
    clean = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def transfer_id(repo: RepoId, commit: str) -> str:
    """The id of the transfer of `repo` at `commit`: 12 hex digits, the same on every node."""
    return hashlib.sha256(f"{repo}@{commit}".encode()).hexdigest()[:12]


EXCEPT = "!"
"""Begin of a pattern of repositories that are left out."""


def matches(patterns: Iterable[str], repo: RepoId) -> bool:
    """Whether one of `patterns`, as fnmatch has them (`Qwen/*`), matches `repo`. Upper and lower case are the same, as
    for the hub."""
    return any(fnmatchcase(repo.folded, pattern.lower()) for pattern in patterns)


@dataclass(frozen=True, slots=True)
class RepoRoute:
    """The repositories that match a pattern, and none with `!` before it; without plain patterns all others."""

    patterns: Sequence[str] = ()

    def takes(self, repo: RepoId) -> bool:
        """Whether `repo` is one of them."""
        left_out = [pattern[1:] for pattern in self.patterns if pattern.startswith(EXCEPT)]
        wanted = [pattern for pattern in self.patterns if not pattern.startswith(EXCEPT)]
        return not matches(left_out, repo) and (not wanted or matches(wanted, repo))


PUBLIC_HUBS = frozenset({"huggingface.co", "hf.co", "hf-mirror.com", "modelscope.cn", "modelscope.ai"})
"""With and without `www.` before the name."""

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
    if parts.scheme not in ("http", "https") or host not in PUBLIC_HUBS or parts.username is not None:
        return None
    segments = [unquote(segment) for segment in parts.path.split("/") if segment]
    kind = f"{segments[0]}/" if segments and segments[0] in KINDS[1:] else ""
    if segments and segments[0] in KINDS:
        del segments[0]
    if not segments or segments[0] == "api":
        return None
    size = 1 if len(segments) == 1 or segments[1] in (*_AT_A_REVISION, *_OTHER_TABS) else 2
    repo, rest = kind + "/".join(segments[:size]), segments[size:]
    if not rest or rest[0] not in _AT_A_REVISION or host.startswith("modelscope"):
        return HubPage(repo)  # the revisions of ModelScope are not the hub's
    revision, path = _revision_and_path(rest[1:])
    return HubPage(repo, revision, "/".join(path) if rest[0] in _FILES else "")


def _revision_and_path(segments: list[str]) -> tuple[str, list[str]]:
    """The revision at the beginning of `segments`, of which `refs/pr/N` takes three, and the rest."""
    count = 3 if segments[:1] == ["refs"] else 1
    return "/".join(segments[:count]), segments[count:]
