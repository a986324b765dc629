"""URLs of coordinators and trackers, and names that hold no secret."""

import pytest

from p2pmodel.coordinator.client.urls import announcing_as, in_zone, public_name


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://host:6969/token", "http://host:6969"),
        ("https://user:password@host/token", "https://host"),
        ("http://[::1]:6969/token", "http://[::1]:6969"),
        ("http://[::1/token", "a malformed URL"),
    ],
)
def test_a_public_name_holds_no_secret(url: str, name: str) -> None:
    assert public_name(url) == name


@pytest.mark.parametrize(
    ("tracker", "url"),
    [
        ("http://host/token/announce", "http://host/token/announce?role=leaseholder"),
        ("https://host/announce?key=1", "https://host/announce?key=1&role=leaseholder"),
        ("udp://host:6969/announce", "udp://host:6969/announce"),
    ],
)
def test_a_role_is_part_of_tracker_urls_that_accept_a_query(tracker: str, url: str) -> None:
    assert announcing_as("leaseholder", tracker) == url


@pytest.mark.parametrize(
    ("tracker", "zone", "asked"),
    [
        ("http://host/announce", "", "http://host/announce"),
        ("http://host/announce", "rack-1", "http://host/announce?zone=rack-1"),
        ("https://host/t0ken/announce?key=x&y", "a b", "https://host/t0ken/announce?zone=a%20b&key=x&y"),
        ("udp://host:1/announce", "rack-1", "udp://host:1/announce"),
    ],
)
def test_a_zone_goes_to_trackers_that_take_a_query(tracker: str, zone: str, asked: str) -> None:
    assert in_zone(tracker, zone) == asked
