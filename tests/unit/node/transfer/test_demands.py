"""What requests of clients and of follow lists make of one transfer."""

from dataclasses import replace

from p2pmodel.core.content.manifest import Selection
from p2pmodel.core.content.names import RepoId
from p2pmodel.node.transfer.demands import TransferDemand, completed, resumed, waits, wanted, widened
from p2pmodel.store.state.transfer_records import TransferRecord

ALL, CONFIG, WEIGHTS = Selection(), Selection(("*.json",)), Selection(("*.safetensors",))
EMPTY = TransferRecord(RepoId("org/m"), "a" * 40, selections=())
OPEN = {WEIGHTS: True}
CLOSED = {WEIGHTS: False}


def followed(record: TransferRecord = EMPTY, selection: Selection = WEIGHTS) -> TransferRecord:
    return widened(record, TransferDemand(selection, ("main",), priority=-10, prefetch=True))


def test_what_only_a_list_asks_for_is_wanted_in_its_window() -> None:
    record = followed()
    assert (wanted(record, OPEN), wanted(record, CLOSED), wanted(record, {})) == ((WEIGHTS,), (), ())
    assert (waits(record, OPEN), waits(record, CLOSED), waits(record, {})) == (False, True, False)
    assert record.priority == -10


def test_a_client_gets_its_files_at_once_and_the_rest_still_waits() -> None:
    record = widened(followed(), TransferDemand(CONFIG))
    assert (wanted(record, CLOSED), wanted(record, OPEN)) == ((CONFIG,), (CONFIG, WEIGHTS))
    assert record.priority == 0
    assert waits(record, CLOSED)


def test_a_client_that_asks_for_the_same_or_for_all_ends_the_wait() -> None:
    for selection in WEIGHTS, ALL:
        record = widened(followed(), TransferDemand(selection))
        assert (record.prefetch, wanted(record, CLOSED)) == ((), (selection,))


def test_a_list_adds_nothing_to_what_clients_have_asked_for() -> None:
    for selection in WEIGHTS, ALL:
        asked = widened(EMPTY, TransferDemand(selection, ("main",), priority=4))
        assert followed(asked) == asked


def test_a_list_leaves_a_pause_and_a_client_ends_it() -> None:
    paused = replace(followed(), paused=True)
    assert followed(paused, CONFIG).paused
    assert not widened(paused, TransferDemand(CONFIG)).paused


def test_complete_is_what_was_fetched() -> None:
    both = followed(followed(), CONFIG)
    record = completed(both, (WEIGHTS,))
    assert (record.complete, record.selections, record.prefetch) == (True, (WEIGHTS,), (CONFIG,))
    assert wanted(record, CLOSED) == (WEIGHTS,)


def test_resume_ends_a_pause_first_and_the_wait_next() -> None:
    paused = replace(followed(), paused=True)
    assert resumed(paused) == followed()
    assert wanted(resumed(resumed(paused)), CLOSED) == (WEIGHTS,)
