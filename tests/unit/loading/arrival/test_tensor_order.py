"""What a load needs next, and how it is requested."""

import asyncio
from collections.abc import Sequence

import pytest

from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.core.content.request_window import FileRange, window
from p2pmodel.loading.arrival import tensor_order
from p2pmodel.loading.arrival.tensor_order import (
    LATE_AFTER,
    LISTED,
    NeedOrder,
    OrderRequests,
    TensorRange,
    begin_with,
    file_after_file,
    files_together,
    numbered,
    without_number,
)
from p2pmodel.store.files.range_set import RangeSet
from tests.support.eventually import eventually
from tests.support.hub_snapshot import snapshot_of

PLACES = [
    TensorRange("lm_head.weight", "3", 10, 20),
    TensorRange("a", "1", 10, 60),
    TensorRange("b", "1", 60, 100),
    TensorRange("c", "2", 10, 100),
    TensorRange("d", "3", 20, 50),
]


def names(places: list[TensorRange]) -> str:
    return " ".join(place.name for place in places)


def test_shard_by_shard_from_a_chosen_one() -> None:
    assert names(file_after_file(PLACES, ["1", "2", "3"], 0)) == "a b c lm_head.weight d"
    assert names(file_after_file(PLACES, ["1", "2", "3"], 5)) == "lm_head.weight d a b c"


def test_as_they_arrive_where_files_are_downloaded_together() -> None:
    sizes = {"1": 100, "2": 100, "3": 50}
    assert names(files_together(PLACES, sizes, 2)) == "a b c lm_head.weight d"
    assert names(files_together(PLACES, sizes, 3)) == "lm_head.weight a b c d"


def test_numbers_sort_as_the_names_are_given_and_come_off_again() -> None:
    given = [f"layers.{number}.weight" for number in (10, 9, 1)]
    found = numbered(given)
    assert sorted(found.values()) == [found[name] for name in given]
    assert [without_number(name) for name in found.values()] == given
    assert without_number("12345678x") == "12345678x"


LISTED_BYTES = LISTED * window(0)
LATE = LATE_AFTER * window(0)
SETTINGS, SHARD, OTHER = snapshot_of(
    {"config.json": b"{}", "model-1.safetensors": bytes(9), "model-2.safetensors": bytes(8)}
).manifest.files


class Arrived:
    """What has arrived of each file."""

    def __init__(self) -> None:
        self.ranges: dict[str, RangeSet] = {}

    def add(self, path: str, start: int, end: int) -> None:
        self.ranges.setdefault(path, RangeSet()).add(start, end)

    def gaps(self, path: str, start: int, end: int) -> Sequence[tuple[int, int]]:
        return self.ranges.get(path, RangeSet()).gaps(start, end)


@pytest.fixture
def arrived() -> Arrived:
    return Arrived()


def need(*order: TensorRange, weights: Sequence[ManifestFile] = (SHARD, OTHER)) -> NeedOrder:
    found = NeedOrder(0, [SETTINGS], weights)
    found.begin(order)
    return found


def tensor(shard: str, start: int, end: int) -> TensorRange:
    return TensorRange(f"{shard}:{start}", shard, start, end)


def test_settings_and_headers_come_first(arrived: Arrived) -> None:
    """The headers also when they are there: so it is found out whether the files come from a swarm."""
    headers = [FileRange(SHARD.path, 0, 1), FileRange(OTHER.path, 0, 1)]
    assert need().missing(arrived.gaps) == [FileRange("config.json", 0, 2), *headers]
    arrived.add("config.json", 0, 2)
    arrived.add(SHARD.path, 0, 9)
    assert need().missing(arrived.gaps) == headers


def test_then_the_parts_of_tensors_that_are_late(arrived: Arrived) -> None:
    """Something is late when much of what is needed later is there."""
    order = need(tensor("a", 10, 20), tensor("a", 20, 2 * LATE), tensor("b", 5, 3 * LATE))
    arrived.add("a", 30, LATE)
    assert order.missing(arrived.gaps) == [], "they arrive in this order"
    arrived.add("b", 5, 34)
    assert order.missing(arrived.gaps) == [], "a byte less than what makes it late"
    arrived.add("b", 34, 35)
    assert order.missing(arrived.gaps) == [FileRange("a", 10, 30)]
    arrived.add("b", 35, LATE + 5)
    assert order.missing(arrived.gaps) == [FileRange("a", 10, 30), FileRange("a", LATE, LATE + LISTED_BYTES - 20)]
    arrived.add("a", 10, 30)
    assert order.missing(arrived.gaps) == [FileRange("a", LATE, LATE + min(LATE, LISTED_BYTES))]
    arrived.add("a", LATE, 2 * LATE)
    assert order.missing(arrived.gaps) == [], "the beginning of b is there, and the rest comes"


def test_all_of_a_tensor_that_is_larger_than_a_window_is_requested_in_turn(arrived: Arrived) -> None:
    order, start = need(tensor("a", 0, 5 * LISTED_BYTES), tensor("b", 0, LATE)), 0
    arrived.add("b", 0, LATE)
    while places := order.missing(arrived.gaps):
        assert [(each.start, each.end) for each in places] == [(start, start + LISTED_BYTES)]
        arrived.add("a", places[0].start, places[0].end)
        start += LISTED_BYTES
    assert start == 5 * LISTED_BYTES


def test_many_tensors_beside_each_other_are_one_run(arrived: Arrived) -> None:
    """A model may have many thousands of tensors, and what is late is looked for five times a second."""
    order = need(*(tensor("a", n, n + 1) for n in range(1000)), *(tensor("b", n, n + 1) for n in range(1000)))
    searched: list[str] = []

    def gaps(path: str, start: int, end: int) -> Sequence[tuple[int, int]]:
        searched.append(path)
        return arrived.gaps(path, start, end)

    order.missing(gaps)
    assert searched == ["a", "b"]
    arrived.add("a", 0, 1000)
    order.missing(gaps)
    searched.clear()
    order.missing(gaps)
    assert searched == ["b"]


def test_nothing_is_needed_when_all_is_there(arrived: Arrived) -> None:
    arrived.add("a", 0, 10)
    assert need(tensor("a", 0, 10)).missing(arrived.gaps) == []


def test_it_begins_with_the_shard_of_which_most_has_arrived() -> None:
    assert begin_with([3, 9, 3], 0) == begin_with([3, 9, 3], 7) == 1
    assert [begin_with([5, 1, 5, 5], first) for first in range(4)] == [0, 2, 3, 0]
    assert begin_with([0], 5) == 0


async def test_requests_are_repeated_while_something_is_missing(
    arrived: Arrived, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The download may begin later, and more can come first when some has arrived."""
    monkeypatch.setattr(tensor_order, "REQUEST_EVERY", 0.001)
    sent: list[Sequence[FileRange]] = []
    answers = iter([False, True])

    async def request(places: Sequence[FileRange]) -> bool:
        sent.append(places)
        return next(answers, True)

    order = NeedOrder(0, [SETTINGS], [SHARD])
    requests = OrderRequests(order, arrived.gaps, request)
    assert not requests.in_swarm
    running = asyncio.create_task(requests.run())
    await eventually(lambda: len(sent) > 2, what="the first places are requested again")
    assert requests.in_swarm
    arrived.add("b", 0, LATE)
    order.begin([tensor("a", 0, 3), tensor("a", 3, 9), tensor("b", 0, LATE)])
    await eventually(lambda: sent[-1] == [FileRange("a", 0, 9)], what="the tensors are requested")
    arrived.add("a", 0, 3)
    await eventually(lambda: sent[-1] == [FileRange("a", 3, 9)], what="the rest is requested")
    arrived.add("a", 3, 9)
    await asyncio.sleep(0.05)
    count = len(sent)
    await asyncio.sleep(0.05)
    assert len(sent) == count, "nothing is missing"
    running.cancel()
    await asyncio.wait({running})
