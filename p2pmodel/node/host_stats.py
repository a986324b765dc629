"""Read this machine's own limits from the operating system; None where it does not provide them."""

import re
import socket
from pathlib import Path

from p2pmodel.core.content.names import printable

_SOME = re.compile(r"^some avg10=(\d+\.\d+)", re.MULTILINE)


def host_name() -> str:
    """The name of this machine, without its domain."""
    return printable(socket.gethostname().partition(".")[0] or "?", 64)


def node_name(given: str | None) -> str:
    """The name of this node: `given` by the settings, else the host name, made a plain one."""
    return given or re.sub(r"[^A-Za-z0-9.-]", "-", host_name()).strip(".-") or "node"


def link_speed(root: Path = Path("/sys/class/net")) -> float | None:
    """Bytes/s of the fastest link that is up, of the interfaces that lead to hardware: alone, bonded or as a VLAN.

    Those of containers (veth) report 10 Gbit/s and tunnels 10 Mbit/s, whatever is behind them.
    """
    links = [device for device in _devices(root) if _text(device / "operstate") == "up" and _has_hardware(device)]
    speeds = [_number(device / "speed") for device in links]
    known = [speed for speed in speeds if speed is not None and speed > 0]
    return max(known) * 1e6 / 8 if known else None


def disk_pressure(file: Path = Path("/proc/pressure/io")) -> float | None:
    """Percent of the last 10 seconds in which a process waited for a disk."""
    found = _SOME.search(_text(file))
    return float(found[1]) if found else None


def _has_hardware(device: Path) -> bool:
    return (device / "device").exists() or any(map(_has_hardware, device.glob("lower_*")))


def _devices(root: Path) -> list[Path]:
    try:
        return sorted(root.iterdir())
    except OSError:
        return []


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _number(path: Path) -> float | None:
    try:
        return float(_text(path))
    except ValueError:
        return None
