"""Figures of the operating system about this machine: read if available, otherwise unknown."""

from pathlib import Path

import pytest

from p2pmodel.node.host_stats import disk_pressure, link_speed


def device(root: Path, name: str, speed: str, state: str = "up", *, over: str = "", hardware: bool = True) -> None:
    folder = root / name
    folder.mkdir()
    if over:
        (folder / f"lower_{over}").symlink_to(root / over)
    elif hardware:
        (folder / "device").mkdir()
    (folder / "speed").write_text(f"{speed}\n")
    (folder / "operstate").write_text(f"{state}\n")


def test_the_fastest_link_that_is_up(tmp_path: Path):
    device(tmp_path, "eth0", "1000")
    device(tmp_path, "eth1", "10000")
    device(tmp_path, "eth2", "100000", "down")
    device(tmp_path, "veth", "-1")
    (tmp_path / "lo").mkdir()
    assert link_speed(tmp_path) == 1.25e9


def test_links_of_unknown_speed(tmp_path: Path):
    assert link_speed(tmp_path) is None
    assert link_speed(tmp_path / "none") is None
    device(tmp_path, "tap", "-1")
    assert link_speed(tmp_path) is None


def test_interfaces_without_hardware_behind_them_tell_nothing(tmp_path: Path):
    device(tmp_path, "veth0", "10000", hardware=False)
    device(tmp_path, "docker0", "10000", over="veth0")
    assert link_speed(tmp_path) is None
    device(tmp_path, "eth0", "1000")
    device(tmp_path, "eth1", "1000")
    device(tmp_path, "bond0", "2000", over="eth0")
    device(tmp_path, "bond0.7", "2000", over="bond0")
    assert link_speed(tmp_path) == 2.5e8


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("some avg10=12.50 avg60=1.00 avg300=0.10 total=1\nfull avg10=1.00 avg60=1.00 avg300=0.10 total=1\n", 12.5),
        ("", None),
        ("full avg10=1.00\n", None),
    ],
)
def test_pressure(tmp_path: Path, text: str, value: float | None):
    file = tmp_path / "io"
    file.write_text(text)
    assert disk_pressure(file) == value


def test_a_kernel_without_it(tmp_path: Path):
    assert disk_pressure(tmp_path / "none") is None
