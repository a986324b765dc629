"""Assembly: every piece is downloaded once, none is awaited that a peer has, and the trees are those of the content."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from p2pmodel.coordinator.assembly.assembly import BACK_WITHIN, CLAIM_FOR, Assembly
from p2pmodel.coordinator.assembly.partial_torrents import assembly_layout
from p2pmodel.coordinator.leases.demand import Demand
from p2pmodel.core.content.bitfield import bits_of
from p2pmodel.core.content.merkle import piece_hash
from tests.support.torrent_files import manifest_of, trees_of

CONTENTS = {
    "a.safetensors": random.Random(1).randbytes(5 * (256 << 10) + 17),
    "b.json": b"{}",
    "c/d.safetensors": random.Random(2).randbytes(3 * (256 << 10)),
    "empty": b"",
}
MANIFEST = manifest_of(CONTENTS)
LAYOUT = assembly_layout(MANIFEST)
COUNT = LAYOUT.piece_count
ALL = frozenset(range(COUNT))


def root(piece: int) -> bytes:
    place = LAYOUT.piece_range(piece)
    data = CONTENTS[place.span.path][place.offset : place.offset + place.length]
    return piece_hash(data, LAYOUT.piece_length, only_piece=place.span.piece_count == 1)


def lacking(*here: int, want: int = 1, **fields: int) -> Demand:
    return Demand(bits_of(ALL - set(here)), from_seeders=False, want=want, **fields)


@given(st.integers(1, 6), st.integers(1, 8), st.integers(0, 1 << 30))
@settings(max_examples=60, deadline=None)
def test_each_piece_is_pulled_once_and_the_trees_are_those_of_the_content(peers: int, want: int, seed: int) -> None:
    dice = random.Random(seed)
    assembly = Assembly(MANIFEST, budget=1.0)
    has: dict[str, set[int]] = {f"peer{n}": set() for n in range(peers)}
    pulled: list[int] = []
    for name in has:
        assembly.update(name, lacking(want=want), {}, 0.0)
    for step in range(1, 2000):
        now = step / 1000
        grants = assembly.grant(now)
        leased = [piece for grant in grants.values() for piece in grant.pieces]
        assert len(leased) == len(set(leased))
        name = dice.choice(sorted(has))
        mine = [piece for piece in grants[name].pieces if piece not in has[name]]
        new = mine[: dice.randint(0, len(mine))]
        pulled += new
        has[name].update(new)
        spent = sum(LAYOUT.piece_range(piece).length for piece in has[name])
        roots = {piece: root(piece) for piece in new}
        assembly.update(name, lacking(*has[name], want=want, origin_bytes=spent), roots, now)
        if not assembly.left:
            break
    assert sorted(pulled) == sorted(ALL)
    assert assembly.trees() == trees_of(CONTENTS, LAYOUT.piece_length)
    assert assembly.origin_bytes == MANIFEST.total_size


def test_pieces_that_a_peer_has_are_not_leased_even_before_their_roots_are_reported() -> None:
    assembly = Assembly(MANIFEST)
    assembly.update("early", lacking(want=8), {}, 0.0)
    first = assembly.grant(0.0)["early"].pieces
    assembly.update("stocked", lacking(*ALL - {COUNT - 1}), {}, 0.1)
    grants = assembly.grant(0.1)
    assert first
    assert grants["early"].pieces + grants["stocked"].pieces == (COUNT - 1,) or grants["early"].pieces == ()
    assembly.leave("stocked")
    assembly.update("early", lacking(want=8), {}, 0.2)
    assert assembly.grant(0.2)["early"].pieces


def test_a_peer_that_claims_all_pieces_blocks_the_others_until_it_reports() -> None:
    assembly = Assembly(MANIFEST)
    assembly.update("alone", Demand(0, from_seeders=False, want=0), {}, 0.0)
    assembly.update("second", lacking(want=8), {}, 0.0)
    assert assembly.grant(0.0)["second"].pieces == ()
    assembly.update("alone", lacking(*range(4), want=8), {}, 0.1)
    grants = assembly.grant(0.1)
    leased = [*grants["alone"].pieces, *grants["second"].pieces]
    assert grants["second"].pieces
    assert min(leased) >= 4
    assert len(leased) == len(set(leased))


def test_a_peer_that_claims_pieces_and_sends_no_roots_does_not_block_the_others_for_ever() -> None:
    assembly = Assembly(MANIFEST)
    for now in (0.0, CLAIM_FOR / 2, CLAIM_FOR):
        assembly.update("liar", Demand(0, from_seeders=False, want=0), {}, now)
        assembly.update("second", lacking(want=8), {}, now)
        assert bool(assembly.grant(now)["second"].pieces) == (now >= CLAIM_FOR)


def test_a_peer_that_was_alone_has_time_to_report() -> None:
    assembly = Assembly(MANIFEST)
    for now in (0.0, 2 * CLAIM_FOR, 4 * CLAIM_FOR):
        assembly.update("alone", Demand(0, from_seeders=False, want=0), {}, now)
    assembly.update("second", lacking(want=8), {}, now)
    assert not assembly.grant(now + 1.0)["second"].pieces


def test_a_peer_that_sends_roots_of_what_it_claims_is_waited_for() -> None:
    assembly = Assembly(MANIFEST)
    for step in range(5):
        now = step * CLAIM_FOR / 2
        assembly.update("stocked", Demand(0, from_seeders=False, want=0), {step: root(step)}, now)
        assembly.update("second", lacking(want=8), {}, now)
        assert not assembly.grant(now)["second"].pieces


def test_roots_of_no_piece_are_ignored_and_the_first_root_stays() -> None:
    assembly = Assembly(MANIFEST)
    assembly.update("a", lacking(), {-1: root(0), COUNT: root(0), 1: b"short", 0: root(0)}, 0.0)
    assert assembly.left == COUNT - 1
    assembly.update("b", lacking(), {0: bytes(32)}, 0.0)
    assembly.update("b", lacking(*ALL), {piece: root(piece) for piece in ALL}, 0.1)
    assert assembly.trees() == trees_of(CONTENTS, LAYOUT.piece_length)


def test_a_departed_peer_leaves_its_roots_and_frees_its_leases() -> None:
    assembly = Assembly(MANIFEST)
    assembly.update("gone", lacking(want=2), {}, 0.0)
    mine = assembly.grant(0.0)["gone"].pieces
    assembly.update("gone", lacking(mine[0], want=2), {mine[0]: root(mine[0])}, 0.1)
    assembly.leave("gone")
    assembly.update("heir", lacking(want=8), {}, 0.2)
    granted: set[int] = set(assembly.grant(0.2)["heir"].pieces)
    assert mine[0] not in granted
    assert mine[1] in granted


def test_slices_are_small_towards_the_end() -> None:
    assembly = Assembly(MANIFEST)
    for name in ("a", "b"):
        assembly.update(name, lacking(want=64), {}, 0.0)
    sizes = [len(grant.pieces) for grant in assembly.grant(0.0).values()]
    assert max(sizes) <= -(-COUNT // 2)
    assembly.update("c", lacking(*range(COUNT - 1)), {piece: root(piece) for piece in range(COUNT - 1)}, 0.1)
    assert [p for g in assembly.grant(0.1).values() for p in g.pieces] == [COUNT - 1]


def test_a_spent_budget_refuses_leases() -> None:
    assembly = Assembly(MANIFEST, budget=0.2)
    for name in "ab":
        assembly.update(name, lacking(want=8), {}, 0.0)
    grants = assembly.grant(0.0)
    assert 0 < sum(len(grant.pieces) for grant in grants.values()) < COUNT
    assert grants["a"].refused


def test_an_invented_count_spends_no_budget() -> None:
    assembly = Assembly(MANIFEST, budget=1.0)
    assembly.update("a", lacking(want=8), {}, 0.0)
    assembly.update("b", lacking(want=0, origin_bytes=1 << 60), {}, 0.0)
    grant = assembly.grant(0.0)["a"]
    assert grant.pieces
    assert not grant.refused


def test_returned_leases_go_to_another_peer_at_once() -> None:
    assembly = Assembly(MANIFEST)
    assembly.update("alone", lacking(want=8), {}, 0.0)
    given_back = assembly.grant(0.0)["alone"].pieces
    assembly.update("alone", Demand(0, from_seeders=False, want=0), {}, 0.1)
    assembly.update("second", lacking(want=8), {}, 0.2)
    assembly.update("alone", lacking(want=0), {}, 0.3)
    assert set(given_back) & set(assembly.grant(0.3)["second"].pieces)


def test_a_restarted_coordinator_waits_for_peers_that_may_have_the_missing_pieces() -> None:
    assembly = Assembly(MANIFEST)
    one = lacking(0, want=4, origin_bytes=1 << 18, leased=1 << 1)
    assembly.update("one", one, {0: root(0)}, 0.0)
    assert assembly.grant(0.0)["one"].pieces == (1,)
    others = set(ALL) - {0, 1, 2}
    assembly.update(
        "other", lacking(*others, want=4, origin_bytes=1 << 20), {piece: root(piece) for piece in others}, 1.0
    )
    assert assembly.grant(1.0)["other"].pieces == ()
    for name, demand in (("one", one), ("other", lacking(*others, want=4, origin_bytes=1 << 20))):
        assembly.update(name, demand, {}, BACK_WITHIN)
    grants = assembly.grant(BACK_WITHIN)
    assert sorted(grants["one"].pieces + grants["other"].pieces) == [1, 2]
