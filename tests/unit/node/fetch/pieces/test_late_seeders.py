"""When a read counts as late, and for how long a late seeder is avoided."""

from p2pmodel.node.fetch.pieces.late_seeders import AT_LEAST, AVOIDED_FOR, MOST_PATIENCE, TIMES, LateSeeders


def test_a_read_is_late_after_several_times_the_usual_time_for_its_bytes() -> None:
    late = LateSeeders()
    assert late.late_after(1000) == AT_LEAST
    late.read(1000, 2.0)
    assert late.late_after(1000) == TIMES * 2.0
    assert late.late_after(2000) == TIMES * 4.0


def test_the_usual_time_follows_the_reads() -> None:
    late = LateSeeders()
    late.read(1000, 100.0)
    for _ in range(100):
        late.read(1000, 0.001)
    assert late.late_after(1000) == AT_LEAST


def test_a_late_seeder_is_avoided_for_a_while() -> None:
    late = LateSeeders()
    late.overtook("slow", 10.0)
    assert late.avoided(10.0 + AVOIDED_FOR - 1) == {"slow"}
    assert late.avoided(10.0 + AVOIDED_FOR) == frozenset()


def test_second_requests_in_vain_become_rare_until_one_helps() -> None:
    late = LateSeeders()
    waits = []
    for _ in range(10):
        waits.append(late.late_after(1000))
        late.in_vain()
    assert waits == sorted(waits)
    assert waits[-1] == MOST_PATIENCE * AT_LEAST
    late.overtook("slow", 0.0)
    assert late.late_after(1000) == AT_LEAST
