"""Repository ids, revisions and references, held against huggingface_hub's own rules."""

from pathlib import PurePosixPath

import pytest
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import validate_repo_id
from hypothesis import example, given
from hypothesis import strategies as st

from p2pmodel.core.content.names import (
    HubPage,
    Reference,
    RepoId,
    RepoRoute,
    VersionRange,
    check_revision,
    hub_page,
    is_commit,
    printable,
)
from p2pmodel.errors import InvalidInput
from p2pmodel.node.snapshot.target import TorrentTarget, parse_target

HUB = "https://huggingface.co"


@pytest.mark.parametrize(
    ("address", "page"),
    [
        (f"{HUB}/Qwen/Qwen3-8B", HubPage("Qwen/Qwen3-8B")),
        (f"{HUB}/Qwen/Qwen3-8B/?x=1#usage", HubPage("Qwen/Qwen3-8B")),
        (f"{HUB}/gpt2", HubPage("gpt2")),
        (f"{HUB}/gpt2/tree/main", HubPage("gpt2", "main")),
        (f"{HUB}/org/name/tree/v1.0/folder", HubPage("org/name", "v1.0")),
        (f"{HUB}/org/name/tree/refs%2Fpr%2F3", HubPage("org/name", "refs/pr/3")),
        (f"{HUB}/org/name/blob/main/a/b.json", HubPage("org/name", "main", "a/b.json")),
        (f"{HUB}/org/name/resolve/main/a%20b?download=true", HubPage("org/name", "main", "a b")),
        (f"{HUB}/org/name/discussions/7", HubPage("org/name")),
        (f"{HUB}/datasets/org/data/viewer/x", HubPage("datasets/org/data")),
        (f"{HUB}/spaces/org/app/tree/main", HubPage("spaces/org/app", "main")),
        ("https://www.hf-mirror.com/org/name", HubPage("org/name")),
        ("https://modelscope.cn/models/Qwen/Qwen3-8B/files", HubPage("Qwen/Qwen3-8B")),
        ("https://other.example/org/name", None),
        ("https://huggingface.co", None),
        ("https://huggingface.co/api/models/gpt2", None),
        ("https://me@huggingface.co/org/name", None),
        ("https://[", None),
        ("org/name", None),
    ],
)
def test_what_a_page_is_about(address: str, page: HubPage | None) -> None:
    assert hub_page(address) == page


def test_a_page_is_a_repository_wherever_one_is_named() -> None:
    assert Reference.parse(f"{HUB}/org/name/tree/v2") == Reference.parse("org/name@v2")
    assert parse_target(f"{HUB}/datasets/org/name") == Reference.parse("datasets/org/name")
    assert isinstance(parse_target(f"{HUB}/org/name/resolve/main/a.torrent"), TorrentTarget)
    with pytest.raises(InvalidInput, match="disagree"):
        Reference.parse(f"{HUB}/org/name/tree/v2", revision="v1")


COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = st.from_regex(r"[A-Za-z0-9_]{1,5}([.-]?[A-Za-z0-9_]{1,5}){0,3}", fullmatch=True).filter(
    lambda name: not name.endswith(".git")
)
REPO = st.one_of(NAME, st.tuples(NAME, NAME).map("/".join))
REVISION = st.sampled_from(["main", "v1.0", "refs/pr/1", "feature/a-b", COMMIT, "größe", "1"])


@given(REPO, REVISION)
def test_every_spelling_of_a_reference_means_the_same(repo: str, revision: str) -> None:
    expected = Reference(RepoId(repo), revision)
    spellings = [f"{repo}@{revision}", f"hf://{repo}@{revision}", f"hf://models/{repo}@{revision}"]
    # `models` is also a name an organisation could have.
    for spelling in spellings:
        assert Reference.parse(spelling) == expected or repo.startswith("models/")
    assert Reference.parse(repo, revision=revision) == expected
    assert Reference.parse(str(expected), revision=revision) == expected
    assert Reference.parse(repo) == Reference(RepoId(repo), "main")


@given(st.text(st.characters(), max_size=60))
@example("")
@example("@")
@example("a@")
@example("@main")
@example("a/b/c")
@example("a@b@c")
@example("hf://")
@example("hf://models/")
@example("org/name@refs/../../x")
@example("org/name@\ud800")
@example("org/name\n")
@example("org/name@main\n")
def test_any_text_is_a_reference_or_an_input_error(text: str) -> None:
    try:
        found = Reference.parse(text)
    except InvalidInput:
        return
    assert Reference.parse(str(found)) == found
    validate_repo_id(found.repo.name)
    str(found).encode()


@given(st.text("ab._-/@~^:.\\ \x00é\ud800", max_size=30))
def test_an_accepted_revision_stays_below_refs(revision: str) -> None:
    try:
        check_revision(revision)
    except InvalidInput:
        return
    path = PurePosixPath("refs") / revision
    assert ".." not in path.parts
    assert path.parts[0] == "refs"
    assert str(path) == f"refs/{revision}"
    assert not path.name.endswith(".lock")
    path.as_posix().encode()


@given(REPO)
def test_cache_folders_are_those_of_the_hub_and_lead_back(repo: str) -> None:
    folder = RepoId(repo).cache_folder
    assert folder == repo_folder_name(repo_id=repo, repo_type="model")
    assert RepoId.from_cache_folder(folder) == RepoId(repo)


@pytest.mark.parametrize(
    "folder", ["kernels--org--name", "models--", "models", "", "models--a--b--c", "models--../x", ".locks"]
)
def test_other_folders_are_no_repositories(folder: str) -> None:
    with pytest.raises(InvalidInput):
        RepoId.from_cache_folder(folder)


@pytest.mark.parametrize(
    "repo",
    [
        "",
        "/",
        "a/",
        "/a",
        "a//b",
        "a/b/c",
        "..",
        "a/..",
        "-a",
        "a-",
        ".a",
        "a.",
        "a--b",
        "a..b",
        "a b",
        "a\nb",
        "ä",
        "a.git",
        "x" * 97,
    ],
)
def test_names_refused_by_the_hub_are_refused(repo: str) -> None:
    with pytest.raises(InvalidInput, match="is not a repository id"):
        RepoId(repo)


@pytest.mark.parametrize(
    "revision",
    ["", "/a", "a/", "a//b", "../a", "a/../b", "a/.b", ".a", "a.", "a b", "a\nb", "a\x00b", "a~1", "a^", "a:b", "a?b",
     "a*b", "a[b", "a\\b", "a%2fb", "a#b", "a@{1}", "x.lock", "x.lock/y", "-x", "x" * 256, "a\ud800"],
)  # fmt: skip
def test_unsafe_revisions_are_refused(revision: str) -> None:
    with pytest.raises(InvalidInput, match="is not a revision"):
        check_revision(revision)


def test_a_flag_that_contradicts_is_refused() -> None:
    with pytest.raises(InvalidInput, match="disagree"):
        Reference.parse("a/b@v1", revision="v2")
    with pytest.raises(InvalidInput, match="empty revision"):
        Reference.parse("a/b@")


def test_only_a_full_commit_is_pinned() -> None:
    assert is_commit(COMMIT)
    assert Reference.parse(f"a/b@{COMMIT}").pinned
    assert not Reference.parse(f"a/b@{COMMIT[:39]}").pinned
    assert not is_commit(COMMIT.upper())


@given(st.text(st.characters()), st.integers(1, 50))
def test_printable_is_one_bounded_line(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert len(shown) <= limit
    assert shown.isprintable()
    shown.encode()


@pytest.mark.parametrize(
    ("text", "kind", "name", "folder"),
    [
        ("org/name", "models", "org/name", "models--org--name"),
        ("datasets/squad", "datasets", "squad", "datasets--squad"),
        ("datasets/org/name", "datasets", "org/name", "datasets--org--name"),
        ("spaces/org/name", "spaces", "org/name", "spaces--org--name"),
    ],
)
def test_kinds_of_repositories(text: str, kind: str, name: str, folder: str) -> None:
    repo = RepoId(text)
    assert (repo.kind, repo.name, repo.cache_folder, str(repo)) == (kind, name, folder, text)
    assert repo.cache_folder == repo_folder_name(repo_id=name, repo_type=kind[:-1])
    assert RepoId.from_cache_folder(folder) == RepoId.of_kind(kind, name) == repo
    assert Reference.parse(f"hf://{text}@v1") == Reference(repo, "v1")


@pytest.mark.parametrize("text", ["datasets", "spaces", "datasets/", "datasets/a/b/c", "datasets/datasets", "models"])
def test_a_kind_alone_is_no_repository(text: str) -> None:
    with pytest.raises(InvalidInput):
        RepoId(text)


@pytest.mark.parametrize("revision", ["^1.2", "~1.2.3", "^v1", "^1.2.3-rc.1"])
def test_a_range_of_versions_is_a_reference_where_it_is_asked_for_alone(revision: str) -> None:
    wanted = Reference.parse(f"org/model@{revision}", ranges=True)
    assert (type(wanted), wanted.pinned, str(wanted)) == (VersionRange, False, f"org/model@{revision}")
    assert type(Reference.parse("org/model@v1.2.0", ranges=True)) is Reference
    with pytest.raises(InvalidInput, match="is a range of versions, not a revision"):
        Reference.parse(f"org/model@{revision}")


@pytest.mark.parametrize("revision", ["^", "^x", "^1.2.3.4", "^1/2", "~1 || 2", "1.2", "^1.2\n"])
def test_what_is_no_range_of_versions(revision: str) -> None:
    with pytest.raises(InvalidInput):
        VersionRange(RepoId("org/model"), revision)


@pytest.mark.parametrize(
    ("patterns", "taken", "left"),
    [
        ((), "org/name gpt2 datasets/org/data", ""),
        (("our-org/*", "Qwen/*"), "our-org/a QWEN/b", "org/name gpt2 datasets/our-org/a"),
        (("!our-org/*",), "Qwen/b gpt2", "our-org/a Our-Org/b"),
        (("our-*", "!our-secret/*"), "our-org/a", "our-secret/a org/name"),
        (("datasets/*",), "datasets/org/data", "org/name"),
    ],
)
def test_patterns_choose_repositories(patterns: tuple[str, ...], taken: str, left: str) -> None:
    route = RepoRoute(patterns)
    assert [name for name in taken.split() if not route.takes(RepoId(name))] == []
    assert [name for name in left.split() if route.takes(RepoId(name))] == []
