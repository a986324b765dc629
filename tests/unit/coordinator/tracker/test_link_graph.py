"""The graph of listed peers: connected and bounded, with every member linked, while members come and go."""

import random
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from p2pmodel.coordinator.tracker.link_graph import LinkGraph, LinkRules
from tests.support.graphs import components

RULES = LinkRules()


def name(number: int) -> bytes:
    return b"%06d" % number


def graph(members: Iterable[int], *, sources: int = 0, seed: int = 1, rules: LinkRules = RULES) -> LinkGraph:
    """Members as they come, the first `sources` of them sources."""
    made = LinkGraph(random.Random(seed), rules)
    for count, number in enumerate(members):
        made.add(name(number), source=count < sources)
        made.top_up(name(number))
    return made


def links_of(links: LinkGraph) -> dict[bytes, list[bytes]]:
    return {member: links.links(member) for member in links}


def check(links: LinkGraph, rules: LinkRules) -> None:
    """What the module's docstring promises."""
    for member, others in links_of(links).items():
        assert member not in others
        assert len(others) == len(set(others)) <= rules.most
        assert all(member in links.links(other) for other in others)


@pytest.mark.parametrize("count", [1, 2, 10, 51])
def test_in_a_small_swarm_all_are_linked(count: int) -> None:
    links = graph(range(count), sources=count // 2)
    assert {len(others) for others in links_of(links).values()} == {count - 1}


@pytest.mark.parametrize("count", [52, 100, 1000, 3000])
def test_in_a_large_one_links_are_bounded_and_paths_are_short(count: int) -> None:
    links = graph(range(count), sources=1)
    check(links, RULES)
    found = links_of(links)
    assert len(components(found)) == 1
    assert min(map(len, found.values())) >= RULES.initial
    assert 40 <= sum(map(len, found.values())) / count <= 60
    assert depth(found, name(0)) <= 6


@pytest.mark.parametrize("count", [60, 100, 1000])
def test_the_last_get_as_many_links_as_others_and_leave_room_for_new_members(count: int) -> None:
    links = graph(range(count), sources=1)
    numbers = [len(others) for others in links_of(links).values()]
    assert min(numbers) < 30
    room = sum(RULES.most - number for number in numbers)
    for member in list(links):
        links.level(member)
    check(links, RULES)
    numbers = [len(others) for others in links_of(links).values()]
    assert min(numbers) >= 35
    assert sum(RULES.most - number for number in numbers) > room // 3


def test_a_member_of_a_small_swarm_and_a_source_get_no_more_links() -> None:
    small = graph(range(51))
    small.level(name(50))
    assert len(small.links(name(50))) == 50
    large = graph([*range(1, 100), 0])
    large.add(name(0), source=True)
    links = list(large.links(name(0)))
    large.level(name(0))
    assert large.links(name(0)) == links


def test_links_are_not_all_between_those_that_came_together() -> None:
    links = graph(range(2000))
    distances = [abs(int(member) - int(other)) for member, others in links_of(links).items() for other in others]
    assert sum(distance <= 30 for distance in distances) > len(distances) // 10
    assert sum(distance > 300 for distance in distances) > len(distances) // 3


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([10, 100, 1000]), st.randoms(use_true_random=False), st.floats(0, 0.8))
def test_any_order_of_coming_and_going_leaves_it_connected(count: int, chance: random.Random, going: float) -> None:
    links = LinkGraph(random.Random(chance.random()), RULES)
    here: list[int] = []
    for number in range(count):
        here.append(number)
        links.add(name(number), source=number == 0)
        links.top_up(name(number))
        assert links.links(name(number)) or len(links) == 1, "a newcomer starves"
        if chance.random() < going:
            links.discard(name(here.pop(int(chance.random() * len(here)))))
    check(links, RULES)
    for number in here:  # the next announces
        links.top_up(name(number))
    check(links, RULES)
    assert len(components(links_of(links))) == (1 if here else 0)
    fewest = min((len(others) for others in links_of(links).values()), default=0)
    assert fewest >= min(RULES.initial, max(0, len(here) - 1))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_it_holds_together_when_half_go_at_once(seed: int) -> None:
    links = graph(range(1000), seed=seed)
    for number in random.Random(seed).sample(range(1000), 500):
        links.discard(name(number))
    assert len(components(links_of(links))) == 1


def test_a_source_has_as_few_links_as_others_and_none_to_sources() -> None:
    links = graph(range(1000), sources=20)
    for number in range(20):
        others = links.links(name(number))
        assert len(others) <= RULES.most
        if number > 0:
            links.top_up(name(number))
    assert any(links.is_source(other) for number in range(20, 60) for other in links.links(name(number)))
    links.add(name(500), source=True)
    assert not any(links.is_source(other) for other in links.links(name(500)))
    assert links.links(name(500))


def test_each_downloader_has_a_source_while_sources_have_free_links() -> None:
    links = graph([*range(1000, 1040), *range(200)], sources=40)
    assert all(any(map(links.is_source, links.links(name(number)))) for number in range(200))


def test_sources_that_met_in_a_small_swarm_part_when_it_grows() -> None:
    links = graph(range(60), sources=20)
    assert name(1) in links.links(name(0))
    links.add(name(0), source=True)
    assert not any(map(links.is_source, links.links(name(0))))


def test_a_completed_peer_frees_a_link_of_the_sources() -> None:
    links = graph(range(200), sources=1)
    full = len(links.links(name(0)))
    mine = [other for other in links.links(name(0)) if other != name(199)][:10]
    for other in mine:
        links.add(other, source=True)
    assert len(links.links(name(0))) == full - 10
    links.top_up(name(199))
    assert any(map(links.is_source, links.links(name(199))))


def test_a_newcomer_is_spliced_into_a_link_if_all_are_full() -> None:
    rules = LinkRules(complete=4, initial=4, most=5)
    links = graph(range(40), rules=rules)
    for number in range(40):
        links.top_up(name(number), fresh=1)
    for number in range(40, 60):
        before = {member: len(others) for member, others in links_of(links).items()}
        links.add(name(number), source=False)
        links.top_up(name(number))
        assert len(links.links(name(number))) >= 2
        assert all(len(links.links(member)) >= count for member, count in before.items())
        check(links, rules)
    assert len(components(links_of(links))) == 1


def test_fresh_links_take_the_place_of_the_oldest() -> None:
    links = graph(range(500))
    for _ in range(20):
        before = list(links.links(name(3)))
        links.top_up(name(3), fresh=5)
        after = links.links(name(3))
        assert len(after) <= RULES.most
        assert len(set(after) - set(before)) >= 4
    check(links, RULES)


def test_a_sample_has_no_duplicates() -> None:
    links = graph(range(1000), sources=3)
    drawn = links.sample(50)
    assert len(drawn) == len(set(drawn)) == 50
    assert sorted(graph(range(4)).sample(50)) == [name(number) for number in range(4)]


def depth(found: dict[bytes, list[bytes]], start: bytes) -> int:
    seen, edge, steps = {start}, {start}, 0
    while edge := {other for member in edge for other in found[member]} - seen:
        seen |= edge
        steps += 1
    return steps


class LinkMachine(RuleBasedStateMachine):
    """Any history, with rules so tight that every limit is met."""

    def __init__(self) -> None:
        super().__init__()
        self.rules = LinkRules(complete=3, initial=3, most=5)
        self.links = LinkGraph(random.Random(1), self.rules)

    @rule(number=st.integers(0, 14), source=st.booleans(), fresh=st.integers(0, 2))
    def renew(self, number: int, source: bool, fresh: int) -> None:
        self.links.add(name(number), source=source)
        self.links.top_up(name(number), fresh)

    @precondition(lambda self: len(self.links))
    @rule(choice=st.integers(0, 100))
    def go(self, choice: int) -> None:
        self.links.discard(list(self.links)[choice % len(self.links)])

    @precondition(lambda self: len(self.links))
    @rule(choice=st.integers(0, 100))
    def wait_again(self, choice: int) -> None:
        member = list(self.links)[choice % len(self.links)]
        self.links.requeue(member)
        assert list(self.links)[-1] == member

    @invariant()
    def sound(self) -> None:
        check(self.links, self.rules)


TestLinkMachine = LinkMachine.TestCase
