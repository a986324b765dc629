"""Placements: which bytes of a new file may lie where in older ones."""

from p2pmodel.core.content.shard_header import StoredTensor
from p2pmodel.node.snapshot.reuse.placements import OldRange, Placement, by_ends, by_tensors


def tensor(name: str, start: int, end: int, dtype: str = "U8") -> StoredTensor:
    return StoredTensor(name, dtype, (end - start,), start, end)


def test_a_cover_is_the_exact_parts_of_neighbouring_segments():
    placement = Placement([OldRange(100, 50, "a", 0), OldRange(150, 50, "b", 500)])
    assert placement.cover(120, 180) == [OldRange(120, 30, "a", 20), OldRange(150, 30, "b", 500)]
    assert placement.cover(100, 200) == list(placement.segments)


def test_a_range_with_a_gap_is_not_covered():
    placement = Placement([OldRange(100, 50, "a", 0), OldRange(160, 40, "b", 0)])
    assert placement.cover(90, 110) == placement.cover(140, 170) == placement.cover(190, 210) == []


def test_tensors_match_by_name_type_and_shape():
    new = [tensor("a", 10, 20), tensor("b", 20, 30), tensor("c", 30, 40), tensor("d", 40, 50)]
    old = {
        "a": ("x", tensor("a", 100, 110)),
        "b": ("x", tensor("b", 110, 130)),
        "c": ("x", tensor("c", 130, 140, dtype="I8")),
    }
    assert by_tensors(new, old).segments == (OldRange(10, 10, "x", 100),)


def test_tensors_that_stay_neighbours_are_one_segment():
    new = [tensor("a", 10, 20), tensor("b", 20, 30), tensor("c", 30, 40)]
    old = {"a": ("x", tensor("a", 5, 15)), "b": ("x", tensor("b", 15, 25)), "c": ("y", tensor("c", 25, 35))}
    assert by_tensors(new, old).segments == (OldRange(10, 20, "x", 5), OldRange(30, 10, "y", 25))


def test_a_file_of_another_size_may_fit_at_both_ends():
    assert [placement.segments for placement in by_ends(100, "x", 90)] == [
        (OldRange(0, 90, "x", 0),),
        (OldRange(10, 90, "x", 0),),
    ]
    assert [placement.segments for placement in by_ends(90, "x", 100)] == [
        (OldRange(0, 90, "x", 0),),
        (OldRange(0, 90, "x", 10),),
    ]
    assert len(by_ends(100, "x", 100)) == 1
    assert not by_ends(100, "x", 0)
