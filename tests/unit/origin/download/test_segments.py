"""Assignment of a file's bytes: none is lost or written twice, and a second mirror helps where it saves time."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.origin.download.segments import SMALLEST, SegmentBoard, request_size

MIB = 1 << 20


def deliver(board, run, length, now):
    start, end = board.received(run, run.segment.start, length, now)
    return end - start


def test_waiting_bytes_go_out_in_order_and_by_size():
    board = SegmentBoard([(0, 100), (200, 50)])
    first, second, third = (board.take(name, 80, 0.0) for name in "aba")
    assert [(r.segment.start, r.segment.end) for r in (first, second, third)] == [(0, 80), (80, 100), (200, 250)]
    assert board.take("b", 80, 0.0) is None
    assert (board.waiting, board.left, board.running("a")) == (0, 150, 2)


def test_the_rest_of_a_failed_request_is_assigned_again():
    board = SegmentBoard([(0, 100)])
    run = board.take("a", 100, 0.0)
    deliver(board, run, 30, 1.0)
    board.ended(run)
    again = board.take("b", 100, 1.0)
    assert (again.segment.start, again.segment.end) == (30, 100)


def test_a_slow_tail_is_split_so_that_both_end_together():
    board = SegmentBoard([(0, 40 * MIB)])
    slow = board.take("slow", 40 * MIB, 0.0)
    board.received(slow, 0, 1, 0.0)
    board.received(slow, 1, 4 * MIB - 1, 4.0)
    helper = board.aid("quick", 8 * MIB, 0.0, 4.0)
    assert helper.segment.start == slow.segment.end == 8 * MIB, "36 MiB are left: 4 for 1 MiB/s, 32 for 8 MiB/s"
    assert helper.segment.end == 40 * MIB


def test_a_helper_of_unknown_rate_gets_half():
    board = SegmentBoard([(0, 12 * MIB)])
    run = board.take("a", 12 * MIB, 0.0)
    board.received(run, 0, 1, 0.0)
    board.received(run, 1, 4 * MIB - 1, 1.0)
    assert board.aid("b", None, 0.0, 1.0).segment.left == run.segment.left == 4 * MIB


def test_latency_counts_against_a_helper():
    board = SegmentBoard([(0, 4 * MIB)])
    slow = board.take("slow", 4 * MIB, 0.0)
    board.received(slow, 0, 1, 0.0)
    board.received(slow, 1, 2 * MIB, 1.0)
    assert board.aid("far", 8 * MIB, 0.9, 1.0) is None


def test_no_mirror_helps_itself_or_with_a_small_rest():
    board = SegmentBoard([(0, 40 * MIB)])
    run = board.take("a", 40 * MIB, 0.0)
    board.received(run, 0, 1, 0.0)
    board.received(run, 1, MIB, 1.0)
    assert board.aid("a", 8 * MIB, 0.0, 1.0) is None
    board.received(run, run.segment.start, 39 * MIB - MIB // 8, 1.5)
    assert board.aid("b", 8 * MIB, 0.0, 1.5) is None


def test_for_a_silent_one_two_race_and_the_first_answer_wins():
    board = SegmentBoard([(0, 10 * MIB)])
    dead = board.take("dead", 10 * MIB, 0.0)
    assert board.aid("b", 1 * MIB, 0.0, 0.5) is None, "it may still answer"
    racer = board.aid("b", 1 * MIB, 0.0, 1.0)
    assert racer.segment is dead.segment
    assert board.aid("c", 1 * MIB, 0.0, 1.0) is None, "two are enough"
    assert board.received(racer, 0, 6 * MIB, 2.0) == (0, 6 * MIB)
    assert board.received(dead, 0, 4 * MIB, 2.1) == (6 * MIB, 6 * MIB), "it came twice"
    assert board.received(dead, 4 * MIB, 6 * MIB, 2.2) == (6 * MIB, 10 * MIB), "but it overtook"
    assert not racer.wanted
    board.ended(racer)
    board.ended(dead)
    assert board.left == 0


def test_requests_last_some_seconds_and_get_smaller_towards_the_end():
    far = 1 << 40
    assert request_size(None, None, 16 * MIB, far, 8) == 4 * MIB
    assert request_size(2 * MIB, 0.01, 16 * MIB, far, 8) == 8 * MIB
    assert request_size(2 * MIB, 0.3, 16 * MIB, far, 8) == 12 * MIB, "a request to a far mirror is larger"
    assert request_size(1e9, None, 16 * MIB, far, 8) == 16 * MIB
    assert request_size(1e9, None, 16 * MIB, 32 * MIB, 8) == 2 * MIB
    assert request_size(10.0, None, 16 * MIB, far, 8) == SMALLEST
    assert request_size(10.0, None, 1000, far, 8) == 1000


class Transfer:
    """Simulates a transfer on a board, and counts the new bytes."""

    def __init__(self, size):
        self.size = size
        self.new = []
        self.now = 0.0
        self.board = SegmentBoard([(0, size)])
        self.runs = []

    def start(self, run):
        if run is not None:
            self.runs.append((run, [run.segment.start]))

    def receive(self, index, length):
        run, position = self.runs[index]
        if run.wanted:
            start, end = self.board.received(run, position[0], length, self.now)
            position[0] += length
            self.new += [(start, end)] if start < end else []

    def end(self, index):
        self.board.ended(self.runs.pop(index)[0])

    def check(self):
        assert sum(end - start for start, end in self.new) + self.board.left == self.size


@given(st.data())
def test_every_byte_is_written_once_under_all_events(data):
    transfer = Transfer(data.draw(st.integers(1, 64)) * MIB // 4)
    board = transfer.board
    for _ in range(data.draw(st.integers(0, 60))):
        transfer.now += data.draw(st.sampled_from([0.0, 0.2, 1.5]))
        action, name = data.draw(st.tuples(st.sampled_from(["take", "aid", "receive", "end"]), st.sampled_from("abc")))
        if action == "take":
            transfer.start(board.take(name, 4 * MIB, transfer.now))
        elif action == "aid":
            transfer.start(board.aid(name, 4.0 * MIB, 0.01, transfer.now))
        elif transfer.runs:
            index = data.draw(st.integers(0, len(transfer.runs) - 1))
            transfer.end(index) if action == "end" else transfer.receive(index, data.draw(st.integers(1, 2 * MIB)))
        transfer.check()
    while transfer.runs:
        transfer.end(0)
    while run := board.take("z", transfer.size, transfer.now):
        transfer.start(run)
        transfer.receive(0, run.segment.left)
        transfer.end(0)
    assert board.left == 0
    ends = sorted(transfer.new)
    assert all(one[1] == next_[0] for one, next_ in pairwise(ends))
    assert (ends[0][0], ends[-1][1]) == (0, transfer.size)
