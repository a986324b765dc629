"""A coordinator's registry of seeders: their URLs, how long they stay, and how many."""

import pytest

from p2pmodel.coordinator.tracker.sources import MAX_SOURCES, Source, Sources

HASH = "ab" * 32
TTL = 100.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sources(clock: Clock) -> Sources:
    return Sources(clock, ttl=TTL)


@pytest.mark.parametrize(
    ("source", "coordinator", "seen"),
    [
        (Source("http://s.test:1/x"), "http://c.test", "http://s.test:1/x"),
        (Source("http://s.test:1/x", "t0ken"), "http://c.test", "http://s.test:1/x"),
        (Source("/source"), "http://c.test:8090", "http://c.test:8090/source"),
        (Source("/source"), "http://c.test:8090/", "http://c.test:8090/source"),
        (Source("/source", "t0ken"), "http://c.test/other", "http://c.test/other/source"),
    ],
)
def test_the_url_of_a_seeder_is_relative_to_the_coordinator(source: Source, coordinator: str, seen: str) -> None:
    assert source.seen_from(coordinator) == seen


def test_seeders_are_listed_once_per_endpoint(sources: Sources) -> None:
    sources.add(HASH, Source("http://b.test", "old"))
    sources.add(HASH, Source("http://a.test"))
    sources.add(HASH, Source("http://b.test", "new"))
    assert sources.of(HASH) == (Source("http://a.test"), Source("http://b.test", "new"))
    assert sources.of("cd" * 32) == ()


def test_a_seeder_without_renewal_is_removed(sources: Sources, clock: Clock) -> None:
    sources.add(HASH, Source("http://a.test"))
    clock.now += TTL / 2
    sources.add(HASH, Source("http://b.test"))
    clock.now += TTL / 2
    assert sources.of(HASH) == (Source("http://b.test"),)
    clock.now += TTL
    assert sources.of(HASH) == ()


def test_a_renewed_seeder_stays_longer(sources: Sources, clock: Clock) -> None:
    for _ in range(5):
        sources.add(HASH, Source("http://a.test"))
        clock.now += TTL * 0.9
    assert sources.of(HASH) == (Source("http://a.test"),)


def test_a_seeder_in_the_same_process_needs_no_renewal(sources: Sources, clock: Clock) -> None:
    sources.add(HASH, Source("/source"), for_ever=True)
    clock.now += 1000 * TTL
    assert sources.of(HASH) == (Source("/source"),)


def test_of_too_many_seeders_the_oldest_is_removed(sources: Sources, clock: Clock) -> None:
    sources.add(HASH, Source("/source"), for_ever=True)
    for number in range(MAX_SOURCES + 5):
        sources.add(HASH, Source(f"http://s{number:03}.test"))
        clock.now += 0.1
    known = sources.of(HASH)
    assert len(known) == MAX_SOURCES
    assert Source("/source") in known
    assert known[1] == Source("http://s006.test")
    assert sources.of("cd" * 32) == ()


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("10.0.0.9:6881", "10.0.0.9:6881"),
        ("127.0.0.1:6881", "10.0.0.1:6881"),
        ("0.0.0.0:6881", "10.0.0.1:6881"),
        ("[::]:6881", "10.0.0.1:6881"),
        ("", ""),
        ("nonsense", ""),
    ],
)
def test_the_peer_address_of_a_seeder_on_all_interfaces_is_that_of_its_url(peer: str, expected: str) -> None:
    assert Source("/source", "t", peer).peer_seen_from("http://10.0.0.1:6969") == expected
    assert Source("http://10.0.0.1:1/source", "t", peer).peer_seen_from("http://elsewhere:6969") == expected


def test_one_address_names_a_bounded_number_of_seeders(clock: Clock) -> None:
    sources = Sources(clock, ttl=TTL, max_address=2)
    sources.add(HASH, Source("http://honest.test"), by="10.0.0.1")
    for number in range(5):
        sources.add(HASH, Source(f"http://s{number}.test"), by="10.0.0.9")
        clock.now += 0.1
    assert [each.endpoint for each in sources.of(HASH)] == ["http://honest.test", "http://s3.test", "http://s4.test"]


def test_an_endpoint_stays_with_the_address_that_named_it(sources: Sources, clock: Clock) -> None:
    sources.add(HASH, Source("http://a.test", "right"), by="10.0.0.1")
    sources.add(HASH, Source("http://a.test", "wrong"), by="10.0.0.9")
    assert sources.of(HASH) == (Source("http://a.test", "right"),)
    sources.add(HASH, Source("http://a.test", "new"), by="10.0.0.2", trusted=True)
    assert sources.of(HASH) == (Source("http://a.test", "new"),)
    clock.now += TTL
    sources.add(HASH, Source("http://a.test", "later"), by="10.0.0.9")
    assert sources.of(HASH) == (Source("http://a.test", "later"),)


def test_a_seeder_that_has_gone_may_come_back_for_a_while(sources: Sources, clock: Clock) -> None:
    sources.add(HASH, Source("http://s.test"))
    sources.lose(HASH, "http://s.test")
    assert (sources.of(HASH), sources.lost(HASH)) == ((), True)
    clock.now += TTL
    assert not sources.lost(HASH)
