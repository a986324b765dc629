"""When seeders are web seeds of the engine."""

from dataclasses import dataclass, field

import pytest

from p2pmodel.core.network.egress import PUBLIC
from p2pmodel.node.fetch.lone.web_seeds import SILENCE, LoneWebSeeds
from p2pmodel.swarm.engine import WebSeeds

SEEDS = WebSeeds(("http://p2pmodel:secret@10.0.0.1:6969/source/org/model/resolve/",))


@dataclass
class Status:
    downloaded: int = 0


@dataclass
class Torrent:
    given: list[tuple[str, ...]] = field(default_factory=list)
    now: Status = field(default_factory=Status)
    fits_web_seeds: bool = True

    def set_web_seeds(self, seeds: WebSeeds) -> None:
        assert seeds.egress == PUBLIC
        self.given.append(seeds.urls)

    def status(self) -> Status:
        return self.now


@dataclass
class Rig:
    found: WebSeeds = SEEDS
    limited: bool = False
    torrent: Torrent = field(default_factory=Torrent)
    seeds: LoneWebSeeds = field(init=False)

    def __post_init__(self) -> None:
        self.seeds = LoneWebSeeds(lambda: self.found, limited=lambda: self.limited)

    def look(self, now: float, *, wanted: bool = True, admissible: bool = True) -> bool:
        return self.seeds.look(self.torrent, now, wanted=wanted, admissible=admissible)  # type: ignore[arg-type]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_they_are_used_once_wanted_and_stay_without_a_coordinator(rig: Rig) -> None:
    assert not rig.look(0, wanted=False)
    assert rig.look(1)
    assert rig.look(2, wanted=False)
    assert rig.torrent.given == [SEEDS.urls]


def test_they_are_dropped_when_others_come_and_used_again_later(rig: Rig) -> None:
    assert rig.look(0)
    assert not rig.look(1, wanted=False, admissible=False)
    assert rig.torrent.given == [SEEDS.urls, ()]
    assert not rig.look(2, wanted=False)
    assert rig.look(3)


def test_the_first_ones_stay_while_they_are_wanted(rig: Rig) -> None:
    assert rig.seeds.at_first(wanted=True) == SEEDS
    assert rig.seeds.used
    assert rig.look(0)
    assert not rig.torrent.given, "the engine has them"


def test_the_first_ones_are_dropped_if_others_have_come(rig: Rig) -> None:
    assert rig.seeds.at_first(wanted=True) == SEEDS
    assert not rig.look(0, wanted=False, admissible=False)
    assert rig.torrent.given == [()]


def test_there_are_no_first_ones_for_a_node_among_others_or_with_a_rate_limit(rig: Rig) -> None:
    assert rig.seeds.at_first(wanted=False) == WebSeeds()
    rig.limited = True
    assert rig.seeds.at_first(wanted=True) == WebSeeds()
    assert not rig.seeds.used


def test_other_seeders_replace_them(rig: Rig) -> None:
    assert rig.look(0)
    rig.found = WebSeeds(("http://10.0.0.2:6969/source/org/model/resolve/",))
    assert rig.look(1)
    assert rig.torrent.given == [SEEDS.urls, rig.found.urls]


def test_without_any_that_fits_there_are_none(rig: Rig) -> None:
    rig.found = WebSeeds()
    assert not rig.look(0)
    assert not rig.torrent.given


def test_for_a_torrent_that_does_not_fit_there_are_none(rig: Rig) -> None:
    rig.torrent.fits_web_seeds = False
    assert not rig.look(0)
    assert not rig.torrent.given


def test_with_a_rate_limit_there_are_none(rig: Rig) -> None:
    rig.limited = True
    assert not rig.look(0)
    rig.limited = False
    assert rig.look(1)
    rig.limited = True
    assert not rig.look(2)
    assert rig.torrent.given == [SEEDS.urls, ()]


def test_they_are_given_up_for_good_once_nothing_arrives(rig: Rig) -> None:
    assert rig.look(0)
    for second in range(1, 20):
        rig.torrent.now.downloaded += 1
        assert rig.look(second)
    assert rig.look(19 + SILENCE)
    assert not rig.look(19.1 + SILENCE)
    assert rig.torrent.given == [SEEDS.urls, ()]
    assert not rig.look(100)


def test_a_token_is_in_no_message() -> None:
    assert "secret" not in repr(SEEDS)
