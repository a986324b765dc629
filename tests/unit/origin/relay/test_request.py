"""Which of the hub's paths are forwarded, and with which token."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.errors import InvalidInput, NotFound
from p2pmodel.origin.relay.request import HubPath

COMMIT = "0123456789" * 4


@pytest.mark.parametrize(
    "path",
    [
        "/api/datasets/squad",
        "/api/datasets/org/data",
        "/api/datasets/org/data/revision/refs%2Fpr%2F1",
        "/api/spaces/org/app/tree/main/settings/x",
        "/api/models/org/model/commits/main",
        "/api/kernels/org/kernel/refs",
        "/datasets/org/data/resolve/main/a/b.parquet",
        "/org/model/raw/main/settings",
    ],
)
def test_contents_are_requested_with_the_token_of_the_node(path: str) -> None:
    assert HubPath(path).is_content


@pytest.mark.parametrize(
    "path",
    [
        *("/api/whoami-v2", "/api/models", "/api/datasets", "/api/collections/org/c", "/api/notifications", "/api/"),
        *("/api/spaces/org/app/jwt", "/api/datasets/squad/jwt", "/api/datasets/org/data/user-access-request/pending"),
        *("/api/datasets/squad/settings", "/api/organizations/org/members", "/datasets/org/data", "/spaces/org/app/x"),
    ],
)
def test_account_pages_are_not_content(path: str) -> None:
    assert not HubPath(path).is_content


@pytest.mark.parametrize("path", ["/api/x/../y", "/api/%2e%2E/y", "/datasets/a%2f..%2fb", "/api/a%5Cb", "/api/./x"])
def test_no_path_leaves_the_endpoint(path: str) -> None:
    with pytest.raises(InvalidInput):
        HubPath(path)


def test_there_is_no_chunk_store() -> None:
    for access in ("read", "write"):
        with pytest.raises(NotFound, match="HF_HUB_DISABLE_XET"):
            HubPath(f"/api/datasets/org/data/xet-{access}-token/main")


def test_a_file_of_a_commit_names_it() -> None:
    assert HubPath(f"/datasets/org/data/resolve/{COMMIT}/x.html").commit == COMMIT
    assert HubPath(f"/datasets/org/data/resolve/{COMMIT}/x.html").is_page
    assert HubPath("/datasets/org/data/resolve/main/x").commit is None
    assert HubPath(f"/api/datasets/org/data/tree/{COMMIT}").commit is None
    assert not HubPath("/api/datasets/org/x.html").is_page


@given(st.text(alphabet="/.%2eEfF5Ccab\\", max_size=30))
def test_accepted_paths_stay_below_the_endpoint(rest: str) -> None:
    try:
        path = HubPath(f"/api/{rest}")
    except (InvalidInput, NotFound):
        return
    assert path.raw.startswith("/api/")
    decoded = path.raw.replace("%2e", ".").replace("%2E", ".").replace("%2f", "/").replace("%2F", "/")
    assert ".." not in decoded.split("/")


@pytest.mark.parametrize(
    ("path", "repo"),
    [
        ("/api/models/org/m", "org/m"),
        ("/api/models/org/m/commits/main", "org/m"),
        ("/api/models/gpt2/tree/main", "gpt2"),
        ("/api/models/gpt2/refs", "gpt2"),
        ("/api/datasets/org/d/anything/else", "datasets/org/d"),
        ("/api/datasets/squad/refs", "datasets/squad"),
        ("/datasets/org/d/resolve/main/f", "datasets/org/d"),
        ("/org%2Fm/raw/main/f", "org/m"),
        ("/api/whoami-v2", None),
        ("/api/models", None),
    ],
)
def test_rules_see_the_repository_whatever_is_asked_of_it(path: str, repo: str | None) -> None:
    assert HubPath(path).repo_named == repo
