"""Which clients are expected to ask for leases."""

from p2pmodel.coordinator.server.expected import WITHIN, ExpectedClients


def test_a_client_is_expected_for_a_while_unless_it_joins() -> None:
    now = 0.0
    expected = ExpectedClients(lambda: now)
    assert not expected.any("a")
    expected.given("a", "10.0.0.1")
    expected.given("a", "10.0.0.2")
    assert expected.any("a")
    assert not expected.any("b")
    expected.joined("a", "10.0.0.1")
    expected.joined("b", "10.0.0.2")
    assert expected.any("a")
    now = WITHIN + 0.1
    assert not expected.any("a")
    expected.given("a", "10.0.0.3")
    expected.joined("a", "10.0.0.3")
    assert not expected.any("a")
