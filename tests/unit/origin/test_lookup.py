"""Manifests from hub doubles, and the error that names every mirror."""

import asyncio
import socket

import pytest
from pydantic import SecretStr
from yarl import URL

from p2pmodel.config.sections.mirrors import MirrorSettings
from p2pmodel.core.content.names import Reference, RepoId
from p2pmodel.errors import AccessDenied, GatedRepo, IntegrityError, RepoNotFound, RevisionNotFound, Unavailable
from p2pmodel.origin.listing import canonical
from tests.support.fake_hub import FakeHub
from tests.support.hub_snapshot import snapshot_of

MAIN = Reference.parse("org/model")


def with_token(hub, token="hf_secret"):
    return MirrorSettings(name="a", endpoint=hub.url, token=SecretStr(token))


@pytest.mark.parametrize("revision", ["main", "v1.0", "refs/pr/3", ""])
async def test_a_manifest_describes_the_whole_snapshot(snapshot, open_origin, revision):
    ref = Reference.parse("org/model", revision=revision or snapshot.commit)
    async with FakeHub(snapshot, refs=["main", "v1.0", "refs/pr/3"]) as hub, open_origin(hub) as origin:
        assert await origin.manifest(ref) == snapshot.manifest
    assert len(hub.requests) == 2, "the model, and its tree"


async def test_the_tree_is_read_page_by_page(snapshot, open_origin):
    async with FakeHub(snapshot, page=2) as hub, open_origin(hub) as origin:
        assert await origin.manifest(MAIN) == snapshot.manifest
    assert sum("/tree/" in r.path for r in hub.requests) > 1


async def test_an_endpoint_with_a_prefix_and_a_repository_without_organisation(open_origin):
    snapshot = snapshot_of({"a.txt": b"a"}, repo="bert-base")
    async with FakeHub(snapshot, prefix="/hf") as hub, open_origin(hub) as origin:
        assert await origin.manifest(Reference.parse("bert-base")) == snapshot.manifest


async def test_private_and_gated_repositories_are_marked(snapshot, open_origin):
    async with FakeHub(snapshot, token="hf_secret") as hub, open_origin(with_token(hub)) as origin:
        assert (await origin.manifest(MAIN)).private
    async with FakeHub(snapshot, token="hf_secret", gated=True) as hub, open_origin(with_token(hub)) as origin:
        assert (await origin.manifest(MAIN)).private


async def test_the_first_mirror_that_answers_wins(snapshot, open_origin, notes):
    other = snapshot_of({"x": b"x"}, repo="org/other")
    async with (
        FakeHub(other) as lacking,
        FakeHub(snapshot) as first,
        FakeHub(snapshot) as second,
        open_origin("http://127.0.0.1:9", lacking, first, second) as origin,
    ):
        assert await origin.manifest(MAIN) == snapshot.manifest
    assert second.requests == []
    assert notes == [
        "mirror a has no manifest: connection refused",
        "mirror b has no manifest: it has no such repository",
    ]


async def test_no_mirror_has_it(snapshot, open_origin):
    async with FakeHub(snapshot) as hub, open_origin(hub, hub) as origin:
        with pytest.raises(RepoNotFound, match=r"a: it has no such repository, b: it has .*HF_TOKEN.*token_env"):
            await origin.manifest(Reference.parse("org/typo"))
        with pytest.raises(RevisionNotFound, match="it has no such revision"):
            await origin.manifest(Reference.parse("org/model@typo"))


async def test_the_most_specific_answer_is_the_error(snapshot, open_origin):
    other = snapshot_of({"x": b"x"}, repo="org/other")
    down = "http://127.0.0.1:9"
    async with (
        FakeHub(other) as without_repo,
        FakeHub(snapshot, refs=[]) as without_revision,
        FakeHub(snapshot, token="right") as private,
    ):
        for mirrors, error in [
            ([down, without_repo], RepoNotFound),
            ([without_repo, down, without_revision], RevisionNotFound),
            ([without_revision, with_token(private, "wrong")], AccessDenied),
        ]:
            async with open_origin(*mirrors) as origin:
                with pytest.raises(error) as caught:
                    await origin.manifest(MAIN)
                assert type(caught.value) is error


async def test_a_wrong_token_is_named_but_not_shown(snapshot, open_origin):
    async with FakeHub(snapshot, token="right") as hub, open_origin(with_token(hub, "hf_wrong")) as origin:
        with pytest.raises(AccessDenied, match=r"a: wrong token \(HTTP 401\).*HF_TOKEN") as caught:
            await origin.manifest(MAIN)
    assert "hf_wrong" not in str(caught.value)


async def test_hf_token_is_not_sent_to_other_mirrors(snapshot, open_origin, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    async with FakeHub(snapshot) as hub, open_origin(hub) as origin:
        await origin.manifest(MAIN)
    assert {r.token for r in hub.requests} == {""}


async def test_a_private_repository_without_a_token(snapshot, open_origin):
    async with FakeHub(snapshot, token="right") as hub, open_origin(hub) as origin:
        with pytest.raises(RepoNotFound, match=r"a private one and no token was given.*set HF_TOKEN, or token_env"):
            await origin.manifest(MAIN)


async def test_a_gated_repository(snapshot, open_origin):
    class Closed(FakeHub):
        async def _info(self, request):
            from tests.support.fake_hub import _error

            raise _error(403, "GatedRepo")

    async with Closed(snapshot) as hub, open_origin(hub) as origin:
        with pytest.raises(GatedRepo, match=r"gated, and no token was given.*set HF_TOKEN"):
            await origin.manifest(MAIN)


async def test_all_down_names_each_with_its_reason(snapshot, open_origin, monkeypatch):
    real = socket.getaddrinfo

    def resolve(host, *args, **kwargs):
        if host == "no-such.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)

    class Deaf(FakeHub):
        async def _info(self, request):
            await asyncio.Event().wait()

    async with Deaf(snapshot) as deaf, open_origin("http://127.0.0.1:9", deaf, "http://no-such.invalid") as origin:
        with pytest.raises(Unavailable) as caught:
            await origin.manifest(MAIN)
    text = str(caught.value)
    assert "a: connection refused, b: timed out waiting for an answer, c: " in text
    assert "DNS" in text


async def test_an_answer_that_drips_is_given_up(snapshot, open_origin):
    class Dripping(FakeHub):
        async def _info(self, request):
            from aiohttp import web

            response = web.StreamResponse()
            await response.prepare(request)
            for _ in range(100):
                await response.write(b" ")
                await asyncio.sleep(0.05)

    async with Dripping(snapshot) as hub, open_origin(hub, connect_timeout=0.1, read_timeout=0.1) as origin:
        with pytest.raises(Unavailable, match="no complete response within"):
            await origin.manifest(MAIN)


async def test_a_busy_hub_is_retried_after_the_time_it_asks_for(snapshot, open_origin, clock):
    hub = FakeHub(snapshot, faults=["retry:5@api"], api_faults=True, now=clock.now)
    async with hub, open_origin(hub) as origin:
        assert await origin.manifest(MAIN) == snapshot.manifest
    assert 5 <= clock.time - 1000 < 8
    hub = FakeHub(snapshot, faults=["503:9999@api"], api_faults=True, now=clock.now)
    async with hub, open_origin(hub) as origin:
        with pytest.raises(Unavailable, match="a: HTTP 503"):
            await origin.manifest(MAIN)


@pytest.mark.parametrize("body", ["<html>sign in</html>", "[]", "{}", '{"id": 5, "siblings": 7}', "null"])
async def test_an_endpoint_that_is_no_hub_is_an_error(snapshot, open_origin, body):
    class Page(FakeHub):
        async def _info(self, request):
            from aiohttp import web

            return web.Response(text=body, content_type="text/html")

    async with Page(snapshot) as hub, open_origin(hub) as origin:
        with pytest.raises(Unavailable, match="its response is not a hub's"):
            await origin.manifest(MAIN)


@pytest.mark.parametrize("path", ["../evil", "/etc/passwd", "a//b"])
async def test_an_unsafe_listing_is_refused_and_the_next_mirror_is_used(snapshot, open_origin, path):
    class Evil(FakeHub):
        async def _info(self, request):
            from aiohttp import web

            sibling = {"rfilename": path, "size": 1, "blobId": "0" * 40}
            return web.json_response({"id": "org/model", "sha": "0" * 40, "siblings": [sibling]})

    async with Evil(snapshot) as evil, FakeHub(snapshot) as good:
        async with open_origin(evil) as origin:
            with pytest.raises(IntegrityError, match="not safe"):
                await origin.manifest(MAIN)
        async with open_origin(evil, good) as origin:
            assert await origin.manifest(MAIN) == snapshot.manifest


async def test_a_mirror_that_answers_with_another_commit(snapshot, open_origin):
    pinned = "f" * 40
    async with FakeHub(snapshot, refs=[pinned]) as hub, open_origin(hub) as origin:
        with pytest.raises(IntegrityError, match="it answers with commit"):
            await origin.manifest(Reference.parse(f"org/model@{pinned}"))


async def test_a_repository_has_the_name_that_the_hub_gives_it(open_origin, notes):
    snapshot = snapshot_of({"config.json": b"{}"}, repo="Org/Model")
    async with FakeHub(snapshot, also=("org/model", "old/name")) as hub, open_origin(hub) as origin:
        for asked in ("Org/Model", "org/model", "old/name", f"old/name@{snapshot.commit}"):
            found = await origin.manifest(Reference.parse(asked))
            assert (str(found.repo), found.commit) == ("Org/Model", snapshot.commit)
    assert notes == [
        "org/model is called Org/Model by mirror a: it is kept under that name",
        "old/name is called Org/Model by mirror a: it is kept under that name",
    ]


@pytest.mark.parametrize(
    ("asked", "given", "page", "name"),
    [
        ("org/model", "Org/Model", "/api/models/org/model/revision/main", "Org/Model"),
        ("old/name", "org/model", "/hf/api/models/org/model/revision/main", "org/model"),
        ("old/name", "org/model", "/api/models/old/name/revision/main", "old/name"),
        ("old/name", "old", "/api/models/old/name/revision/main", "old/name"),
        ("org/model", "../../x", "/api/models/org/model", "org/model"),
        ("org/model", "", "/api/models/org/model", "org/model"),
        ("gpt2", "openai-community/gpt2", "/api/models/openai-community/gpt2", "openai-community/gpt2"),
    ],
)
def test_another_name_counts_only_after_a_redirect_to_it(asked: str, given: str, page: str, name: str):
    found = canonical(RepoId(asked), given, URL(f"http://hub{page}"))
    assert str(found) == name
