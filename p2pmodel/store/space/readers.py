"""The readers of a cache's files: processes of this machine that have them open or mapped, and other processes of
p2pmodel that serve them.

Only processes that this user may inspect are seen, and none in other containers. Inodes are compared without their
device: at worst an unrelated open file protects a snapshot.
"""

import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from p2pmodel.store.cache import RepoCache
from p2pmodel.store.file_links import this_machine
from p2pmodel.store.files.disk import names_in

PROC = Path("/proc")


def open_inodes(own: Collection[int], proc: Path = PROC) -> frozenset[int]:
    """Inodes of the files that processes other than `own` have open or mapped. Blocks."""
    found: set[int] = set()
    for name in names_in(proc):
        if name.isdigit() and int(name) not in own:
            with suppress(OSError):
                found.update(_open(proc / name))
            with suppress(OSError):
                found.update(_mapped(proc / name))
    return frozenset(found)


def serving_processes(repo: RepoCache, own: Collection[int]) -> list[str]:
    """The processes other than `own` with an engine that has files of this repository, as `MACHINE-BOOT-PID-...`."""
    names = (name for place in repo.private_places for name in names_in(place / "links"))
    return [name for name in names if _runs(name, own)]


def _runs(name: str, own: Collection[int]) -> bool:
    host, _, rest = name.partition("-")
    boot, _, rest = rest.partition("-")
    pid = rest.partition("-")[0]
    if not pid.isdigit():
        return False
    if f"{host}-{boot}" != this_machine():
        return this_machine().partition("-")[0] != host  # elsewhere it cannot be asked; here it was before a restart
    return int(pid) not in own and (PROC / pid).exists()


def _open(process: Path) -> Iterator[int]:
    for name in os.listdir(process / "fd"):  # noqa: PTH208 - names alone
        with suppress(OSError):
            yield (process / "fd" / name).stat().st_ino


def _mapped(process: Path) -> Iterator[int]:
    with (process / "maps").open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            fields = line.split(maxsplit=5)
            if len(fields) == 6 and fields[4].isdigit() and fields[4] != "0":
                yield int(fields[4])
