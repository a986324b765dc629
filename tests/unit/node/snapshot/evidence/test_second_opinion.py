"""A second opinion: mirrors that agree, that contradict, that are silent, and that are one and the same."""

from collections.abc import Callable
from pathlib import Path

import pytest

from p2pmodel.config.sections.mirrors import MirrorSettings, OriginSettings
from p2pmodel.config.sections.trust import TrustSettings
from p2pmodel.config.settings import Settings
from p2pmodel.errors import Contradicted, InvalidInput, Unconfirmed
from p2pmodel.node.snapshot.evidence.second_opinion import SecondOpinion, confirmed_commits
from p2pmodel.origin.origin import Origin
from tests.support.fake_hub import FakeHub
from tests.support.hub_snapshot import snapshot_of
from tests.support.node_swarm import CONTENTS

CLOSED = "http://127.0.0.1:1"
SNAPSHOT = snapshot_of(CONTENTS)
OTHER = snapshot_of(dict(CONTENTS) | {"config.json": b"[]"}, commit=SNAPSHOT.commit)
MORE = snapshot_of(dict(CONTENTS) | {"more.py": b"import os"}, commit=SNAPSHOT.commit)


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., Settings]:
    def made(*endpoints: str, confirm: int = 2) -> Settings:
        mirrors = tuple(MirrorSettings(name=f"m{n}", endpoint=url) for n, url in enumerate(endpoints))
        trust = TrustSettings(confirm=confirm)
        return Settings(cache_dir=tmp_path, mirrors=mirrors, state_dir=tmp_path / "state", trust=trust)

    return made


async def ask(settings: Settings) -> None:
    limits = OriginSettings(connect_timeout=5, read_timeout=5, patience=0.1)
    async with Origin(settings.mirrors, limits) as origin:
        await SecondOpinion(settings, origin).require(SNAPSHOT.manifest)


async def test_enough_mirrors_agree_and_are_asked_once(settings: Callable[..., Settings]) -> None:
    async with FakeHub(SNAPSHOT) as one, FakeHub(SNAPSHOT) as two:
        both = settings(one.url, two.url)
        await ask(both)
        confirmed = confirmed_commits(both).of(SNAPSHOT.manifest)
        assert confirmed is not None
        assert set(confirmed.mirrors) == {"m0", "m1"}
        assert confirmed_commits(both).of(OTHER.manifest) is None
        asked = len(one.requests), len(two.requests)
        await ask(both)
        assert (len(one.requests), len(two.requests)) == asked
        with pytest.raises(InvalidInput, match="3 mirrors must confirm"):
            await ask(settings(one.url, two.url, one.url, confirm=3))


@pytest.mark.parametrize(("listed", "reason"), [(OTHER, r"config\.json has another hash"), (MORE, r"more\.py")])
async def test_a_mirror_that_lists_other_files_is_named(
    settings: Callable[..., Settings], listed: object, reason: str
) -> None:
    async with FakeHub(SNAPSHOT) as one, FakeHub(SNAPSHOT) as two, FakeHub(listed) as wrong:
        with pytest.raises(Contradicted, match=rf"m2 \(.*{reason}\).*found: m0, m1"):
            await ask(settings(one.url, two.url, wrong.url))


async def test_silent_mirrors_confirm_nothing(settings: Callable[..., Settings]) -> None:
    async with FakeHub(SNAPSHOT) as one:
        with pytest.raises(Unconfirmed, match=r"1 mirror of the 2.*m1: .*refused"):
            await ask(settings(one.url, CLOSED))
        with pytest.raises(Unconfirmed, match="no mirror may be asked"):
            await SecondOpinion(settings(one.url, CLOSED), None).require(SNAPSHOT.manifest)
        await ask(settings(one.url, CLOSED, confirm=0))
