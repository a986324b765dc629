from p2pmodel.origin.download.ledger import Ledger, LedgerEntry


def test_bytes_of_one_response_are_one_stretch():
    ledger = Ledger()
    ledger.add(1, "a", 0, 10)
    ledger.add(2, "b", 50, 60)
    ledger.add(1, "a", 10, 30)
    ledger.add(3, "a", 30, 35)
    assert ledger.of("a") == [LedgerEntry("a", 0, 30), LedgerEntry("a", 30, 35)], (
        "the longest first, responses separate"
    )
    assert ledger.names() == ["b", "a"], "the smallest share first"


def test_the_rest_is_unattributed():
    ledger = Ledger()
    assert ledger.unattributed(5) == [(0, 5)]
    ledger.add(1, "a", 10, 20)
    ledger.add(2, "b", 40, 50)
    assert ledger.unattributed(50) == [(0, 10), (20, 20)]
    assert ledger.unattributed(60) == [(0, 10), (20, 20), (50, 10)]


def test_forgetting_one_leaves_the_others():
    ledger = Ledger()
    ledger.add(1, "a", 0, 10)
    ledger.add(2, "b", 10, 20)
    ledger.forget("a")
    assert (ledger.names(), ledger.unattributed(20)) == (["b"], [(0, 10)])
    ledger.clear()
    assert ledger.names() == []
