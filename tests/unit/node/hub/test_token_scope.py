"""Models that only a client's own token opened: withheld until the node itself may read them."""

import asyncio
from pathlib import Path

import pytest

from p2pmodel.core.content.names import RepoId
from p2pmodel.errors import LocalResource
from p2pmodel.node.hub.token_scope import CHECK_EVERY, TokenScope
from p2pmodel.store.state.judgements import WithheldModels
from tests.support.eventually import eventually

REPO = RepoId("org/model")


class Mirrors:
    """Whether the node's own token opens a repository, and the number of checks."""

    def __init__(self) -> None:
        self.opened, self.asked, self.now = False, 0, 0.0

    async def opens(self, repo: RepoId) -> bool:
        assert repo == REPO
        self.asked += 1
        return self.opened

    def rights(self, folder: Path) -> TokenScope:
        return TokenScope(WithheldModels(folder / "node" / "withheld.json"), self.opens, now=lambda: self.now)


async def test_it_is_withheld_until_the_node_may_have_it(tmp_path: Path) -> None:
    mirrors = Mirrors()
    rights = mirrors.rights(tmp_path)
    assert not await rights.withholds(REPO)
    await rights.withhold(REPO)
    assert await rights.withholds(REPO)
    assert not mirrors.asked, "the result is recent"
    mirrors.opened = True
    mirrors.now += CHECK_EVERY
    assert not await rights.withholds(REPO)
    assert not await mirrors.rights(tmp_path).withholds(REPO)
    assert mirrors.asked == 1


async def test_no_client_waits_long_for_the_mirrors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pmodel.node.hub.token_scope.PATIENCE", 0.01)
    mirrors, answered = Mirrors(), asyncio.Event()

    async def slowly(_: RepoId) -> bool:
        await answered.wait()
        return True

    withheld = WithheldModels(tmp_path / "withheld.json")
    rights = TokenScope(withheld, slowly, now=lambda: mirrors.now)
    await rights.withhold(REPO)
    mirrors.now += CHECK_EVERY
    assert await rights.withholds(REPO)
    answered.set()
    await eventually(lambda: not withheld.covers(REPO), what="the answer counts all the same")
    await rights.close()


async def test_it_outlives_the_node(tmp_path: Path) -> None:
    mirrors = Mirrors()
    await mirrors.rights(tmp_path).withhold(REPO)
    again = mirrors.rights(tmp_path)
    for _ in range(3):
        assert await again.withholds(REPO)
    assert mirrors.asked == 1, "one check per interval"


async def test_a_record_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "node").write_text("a file where the folder belongs")
    with pytest.raises(LocalResource):
        await Mirrors().rights(tmp_path).withhold(REPO)
