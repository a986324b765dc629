"""Network namespaces joined by veth pairs with shaped ends. Needs root, `ip` and `tc`."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack, suppress

ENTER = ("ip", "netns", "exec")
"""What stands before a namespace and the command in it."""
_BURST = 128 << 10
_BURST_SECONDS = 0.002


def unavailable() -> str:
    """The reason why this machine cannot have such a rig; "" if it can."""
    if os.geteuid() != 0:
        return "it needs root"
    missing = [program for program in ("ip", "tc") if not shutil.which(program)]
    return f"it needs {' and '.join(missing)} (Debian: iproute2)" if missing else ""


def ip(*arguments: str) -> None:
    """Run `ip ARGUMENTS`, which must succeed."""
    subprocess.run(["ip", *arguments], check=True)


def add_namespace(name: str, stack: ExitStack) -> None:
    """A namespace that is deleted with `stack`, together with every device in it."""
    ip("netns", "add", name)
    stack.callback(_delete, name)
    ip("-n", name, "link", "set", "lo", "up")


def names() -> list[str]:
    """All named namespaces of this machine."""
    listed = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True).stdout
    return [line.split()[0] for line in listed.splitlines()]


def join(namespace: str, device: str, other: str, other_device: str) -> None:
    """A veth pair with one end in each of two namespaces. Both ends are still down."""
    ends = ["netns", namespace, "type", "veth", "peer", "name", other_device, "netns", other]
    ip("link", "add", device, *ends)


def shape(namespace: str, device: str, rate: float) -> None:
    """Limit what `device` sends to `rate` bytes per second."""
    burst = max(_BURST, int(rate * _BURST_SECONDS))
    limit = ["rate", f"{int(rate * 8)}bit", "burst", str(burst), "latency", "50ms"]
    subprocess.run(["tc", "-n", namespace, "qdisc", "add", "dev", device, "root", "tbf", *limit], check=True)


def inside(namespace: str, command: Sequence[str]) -> list[str]:
    """`command` as it runs in `namespace`. The process that starts becomes the command itself."""
    return [*ENTER, namespace, *command]


def _delete(name: str) -> None:
    with suppress(subprocess.CalledProcessError):
        ip("netns", "delete", name)
