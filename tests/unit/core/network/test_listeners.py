"""The addresses that this process listens on."""

from p2pmodel.core.network.listeners import is_own, listening


def test_an_address_is_own_while_it_is_listened_on() -> None:
    assert not is_own("127.0.0.1", 81)
    with listening("127.0.0.1", 81):
        with listening("127.0.0.1", 81):
            assert is_own("127.0.0.1", 81)
        assert is_own("127.0.0.1", 81)
        assert not is_own("127.0.0.1", 82)
        assert not is_own("127.0.0.2", 81)
    assert not is_own("127.0.0.1", 81)


def test_a_wildcard_includes_the_addresses_of_this_machine_only() -> None:
    with listening("0.0.0.0", 81):
        assert is_own("127.0.0.3", 81)
        assert not is_own("198.51.100.7", 81)
        assert not is_own("127.0.0.3", 82)
