"""Births: every piece is pulled once, nobody waits for what somebody has, and the trees are those of the content."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from p2pmodel.coordinator.assembly import BACK_WITHIN, Assembly, birth_layout
from p2pmodel.coordinator.leases import Demand, bits_of
from p2pmodel.core.merkle import piece_hash
from tests.support.torrent_files import manifest_of, trees_of

CONTENTS = {
    "a.safetensors": random.Random(1).randbytes(5 * (256 << 10) + 17),
    "b.json": b"{}",
    "c/d.safetensors": random.Random(2).randbytes(3 * (256 << 10)),
    "empty": b"",
}
MANIFEST = manifest_of(CONTENTS)
LAYOUT = birth_layout(MANIFEST)
COUNT = LAYOUT.piece_count
ALL = frozenset(range(COUNT))


def root(piece: int) -> bytes:
    place = LAYOUT.piece_range(piece)
    data = CONTENTS[place.span.path][place.offset : place.offset + place.length]
    return piece_hash(data, LAYOUT.piece_length, only_piece=place.span.piece_count == 1)


def lacking(*here: int, want: int = 1, **fields: int) -> Demand:
    return Demand(bits_of(ALL - set(here)), near=False, want=want, **fields)


@given(st.integers(1, 6), st.integers(1, 8), st.integers(0, 1 << 30))
@settings(max_examples=60, deadline=None)
def test_each_piece_is_pulled_once_and_the_trees_are_those_of_the_content(peers: int, want: int, seed: int) -> None:
    dice = random.Random(seed)
    birth = Assembly(MANIFEST, budget=1.0)
    has: dict[str, set[int]] = {f"peer{n}": set() for n in range(peers)}
    pulled: list[int] = []
    for name in has:
        birth.tell(name, lacking(want=want), {}, 0.0)
    for step in range(1, 2000):
        now = step / 1000
        grants = birth.grant(now)
        leased = [piece for grant in grants.values() for piece in grant.pieces]
        assert len(leased) == len(set(leased))
        name = dice.choice(sorted(has))
        mine = [piece for piece in grants[name].pieces if piece not in has[name]]
        new = mine[: dice.randint(0, len(mine))]
        pulled += new
        has[name].update(new)
        spent = sum(LAYOUT.piece_range(piece).length for piece in has[name])
        told = {piece: root(piece) for piece in new}
        birth.tell(name, lacking(*has[name], want=want, origin_bytes=spent), told, now)
        if not birth.left:
            break
    assert sorted(pulled) == sorted(ALL)
    assert birth.trees() == trees_of(CONTENTS, LAYOUT.piece_length)
    assert birth.origin_bytes == MANIFEST.total_size


def test_what_somebody_has_is_nobodys_to_pull_even_before_its_root_is_told() -> None:
    birth = Assembly(MANIFEST)
    birth.tell("early", lacking(want=8), {}, 0.0)
    first = birth.grant(0.0)["early"].pieces
    birth.tell("stocked", lacking(*ALL - {COUNT - 1}), {}, 0.1)
    grants = birth.grant(0.1)
    assert first
    assert grants["early"].pieces + grants["stocked"].pieces == (COUNT - 1,) or grants["early"].pieces == ()
    birth.leave("stocked")
    birth.tell("early", lacking(want=8), {}, 0.2)
    assert birth.grant(0.2)["early"].pieces


def test_who_claims_everything_holds_the_others_off_until_it_says_what_it_has() -> None:
    birth = Assembly(MANIFEST)
    birth.tell("alone", Demand(0, near=False, want=0), {}, 0.0)
    birth.tell("second", lacking(want=8), {}, 0.0)
    assert birth.grant(0.0)["second"].pieces == ()
    birth.tell("alone", lacking(*range(4), want=8), {}, 0.1)
    grants = birth.grant(0.1)
    leased = [*grants["alone"].pieces, *grants["second"].pieces]
    assert grants["second"].pieces
    assert min(leased) >= 4
    assert len(leased) == len(set(leased))


def test_roots_of_no_piece_are_passed_over_and_the_first_stays() -> None:
    birth = Assembly(MANIFEST)
    birth.tell("a", lacking(), {-1: root(0), COUNT: root(0), 1: b"short", 0: root(0)}, 0.0)
    assert birth.left == COUNT - 1
    birth.tell("b", lacking(), {0: bytes(32)}, 0.0)
    birth.tell("b", lacking(*ALL), {piece: root(piece) for piece in ALL}, 0.1)
    assert birth.trees() == trees_of(CONTENTS, LAYOUT.piece_length)


def test_who_goes_leaves_its_roots_behind_and_its_leases() -> None:
    birth = Assembly(MANIFEST)
    birth.tell("gone", lacking(want=2), {}, 0.0)
    mine = birth.grant(0.0)["gone"].pieces
    birth.tell("gone", lacking(mine[0], want=2), {mine[0]: root(mine[0])}, 0.1)
    birth.leave("gone")
    birth.tell("heir", lacking(want=8), {}, 0.2)
    granted: set[int] = set(birth.grant(0.2)["heir"].pieces)
    assert mine[0] not in granted
    assert mine[1] in granted


def test_slices_are_small_towards_the_end() -> None:
    birth = Assembly(MANIFEST)
    for name in ("a", "b"):
        birth.tell(name, lacking(want=64), {}, 0.0)
    sizes = [len(grant.pieces) for grant in birth.grant(0.0).values()]
    assert max(sizes) <= -(-COUNT // 2)
    birth.tell("c", lacking(*range(COUNT - 1)), {piece: root(piece) for piece in range(COUNT - 1)}, 0.1)
    assert [p for g in birth.grant(0.1).values() for p in g.pieces] == [COUNT - 1]


def test_a_budget_that_is_spent_is_said() -> None:
    birth = Assembly(MANIFEST, budget=0.5)
    birth.tell("a", lacking(want=8, origin_bytes=MANIFEST.total_size), {}, 0.0)
    grant = birth.grant(0.0)["a"]
    assert (grant.pieces, grant.refused) == ((), True)


def test_what_a_peer_gives_back_is_leased_to_another_at_once() -> None:
    birth = Assembly(MANIFEST)
    birth.tell("alone", lacking(want=8), {}, 0.0)
    given_back = birth.grant(0.0)["alone"].pieces
    birth.tell("alone", Demand(0, near=False, want=0), {}, 0.1)
    birth.tell("second", lacking(want=8), {}, 0.2)
    birth.tell("alone", lacking(want=0), {}, 0.3)
    assert set(given_back) & set(birth.grant(0.3)["second"].pieces)


def test_a_coordinator_that_begins_anew_waits_for_those_who_have_what_seems_to_be_missing() -> None:
    birth = Assembly(MANIFEST)
    one = lacking(0, want=4, origin_bytes=1 << 18, leased=1 << 1)
    birth.tell("one", one, {0: root(0)}, 0.0)
    assert birth.grant(0.0)["one"].pieces == (1,)
    others = set(ALL) - {0, 1, 2}
    birth.tell("other", lacking(*others, want=4, origin_bytes=1 << 20), {piece: root(piece) for piece in others}, 1.0)
    assert birth.grant(1.0)["other"].pieces == ()
    for name, demand in (("one", one), ("other", lacking(*others, want=4, origin_bytes=1 << 20))):
        birth.tell(name, demand, {}, BACK_WITHIN)
    grants = birth.grant(BACK_WITHIN)
    assert sorted(grants["one"].pieces + grants["other"].pieces) == [1, 2]
