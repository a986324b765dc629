"""Network namespaces joined by veth pairs with shaped ends: what the rigs have in common. Needs root, `ip` and `tc`."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack, suppress

_BURST = 128 << 10
_BURST_SECONDS = 0.002


def lacking() -> str:
    """Why this machine can have no such rig; "" if it can."""
    if os.geteuid() != 0:
        return "it needs root"
    missing = [program for program in ("ip", "tc") if not shutil.which(program)]
    return f"it needs {' and '.join(missing)} (Debian: iproute2)" if missing else ""


def ip(*arguments: str) -> None:
    """Run `ip ARGUMENTS`, which must succeed."""
    subprocess.run(["ip", *arguments], check=True)


def add_namespace(name: str, stack: ExitStack) -> None:
    """A namespace that is deleted with `stack`, and with it every device in it."""
    ip("netns", "add", name)
    stack.callback(_delete, name)
    ip("-n", name, "link", "set", "lo", "up")


def names() -> list[str]:
    """All named namespaces of this machine."""
    listed = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True).stdout
    return [line.split()[0] for line in listed.splitlines()]


def join(namespace: str, device: str, other: str, other_device: str) -> None:
    """A veth pair with an end in each of two namespaces; both are still down."""
    ends = ["netns", namespace, "type", "veth", "peer", "name", other_device, "netns", other]
    ip("link", "add", device, *ends)


def shape(namespace: str, device: str, rate: float) -> None:
    """Let `device` send `rate` bytes a second at most."""
    burst = max(_BURST, int(rate * _BURST_SECONDS))
    limit = ["rate", f"{int(rate * 8)}bit", "burst", str(burst), "latency", "50ms"]
    subprocess.run(["tc", "-n", namespace, "qdisc", "add", "dev", device, "root", "tbf", *limit], check=True)


def inside(namespace: str, command: Sequence[str]) -> list[str]:
    """`command` as it runs in `namespace`; the process that is started becomes the command itself."""
    return ["ip", "netns", "exec", namespace, *command]


def _delete(name: str) -> None:
    with suppress(subprocess.CalledProcessError):
        ip("netns", "delete", name)
