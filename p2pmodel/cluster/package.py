"""p2pmodel for hosts that have none, and no internet: a folder of wheels, or a tree of `pip install --target`.

It is carried through the connection once, to `versions/` of the host's state folder. There a version is complete or
absent.
"""

import asyncio
import gzip
import hashlib
import io
import re
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from p2pmodel.cluster.launcher import HostLook, RemoteHost
from p2pmodel.core.content.names import printable
from p2pmodel.core.sizes import human
from p2pmodel.errors import InvalidInput, LocalResource

INSTALL_SECONDS = 600.0
_HINT = "name a folder of wheels with p2pmodel's, or what 'pip install --target FOLDER p2pmodel' has made"
_EXTENSION = re.compile(r"\.cpython-(3)(\d+)-")
_SKIPPED = {"__pycache__", "bin"}

_INSTALL = r"""
set -e
umask 077
dir=$1 kind=$2
[ -x "$dir/p2pmodel" ] && exit 0
new=$dir.new.$$
trap 'rm -rf "$new"' EXIT
mkdir -p "$new/content"
tar -xzf - -C "$new/content"
if [ "$kind" = wheels ]; then
  # The environment is made at its final place: its scripts have absolute paths.
  rm -rf "$dir" && mkdir -p "$dir" && mv "$new/content" "$dir/content"
  python3 -m venv "$dir/venv"
  "$dir/venv/bin/python" -m pip install -q --disable-pip-version-check \
    --no-index --find-links "$dir/content" p2pmodel >&2
  rm -rf "$dir/content"
  printf '#!/bin/sh\nexec "%s/venv/bin/p2pmodel" "$@"\n' "$dir" >"$dir/p2pmodel.new"
else
  rm -rf "$dir" && mv "$new" "$dir"
  printf '#!/bin/sh\nPYTHONPATH="%s/content" exec python3 -m p2pmodel "$@"\n' "$dir" >"$dir/p2pmodel.new"
fi
chmod 700 "$dir/p2pmodel.new"
mv "$dir/p2pmodel.new" "$dir/p2pmodel"
"""


@dataclass(frozen=True, slots=True)
class CarriedPackage:
    """A package to be carried: `archive` is a tar.gz. `pythons`: the minor versions that a tree's extension modules are
    for; empty for wheels, which pip judges, and for a tree without any."""

    digest: str
    kind: Literal["wheels", "tree"]
    archive: bytes = field(repr=False)
    pythons: frozenset[str] = frozenset()

    def command(self, look: HostLook) -> tuple[str, ...]:
        """The command for p2pmodel on a host that has it."""
        return (f"{self._folder(look)}/p2pmodel",)

    async def onto(self, host: RemoteHost, look: HostLook) -> None:
        """Install it, unless this version is there. Raises LocalResource with the reason of the host."""
        there = await host.run(["test", "-x", self.command(look)[0]])
        if there.code == 0:
            return
        if not look.python:
            raise LocalResource(f"{host.name}: no python3 is installed there", hint="install Python 3.11 or newer")
        if self.pythons and look.python not in self.pythons:
            wanted = " or ".join(sorted(self.pythons))
            what = f"{host.name}: the tree is for Python {wanted}, and the host has {look.python}"
            raise LocalResource(what, hint="make it with the hosts' Python, or carry wheels")
        command = ["sh", "-c", _INSTALL, "sh", self._folder(look), self.kind]
        done = await host.run(command, stdin=self.archive, timeout=INSTALL_SECONDS)
        if done.code:
            what = f"{host.name}: p2pmodel was not installed there: {printable(done.reason, 300)}"
            raise LocalResource(what, hint="carry wheels for its Python, or install p2pmodel there")

    def _folder(self, look: HostLook) -> str:
        return f"{look.state_dir}/versions/{self.digest}"


async def carried(path: Path) -> CarriedPackage:
    """The package in the folder `path`. Raises InvalidInput."""
    return await asyncio.to_thread(_packed, path)


def _packed(path: Path) -> CarriedPackage:
    tree = (path / "p2pmodel/__init__.py").is_file()
    if not tree and not any(path.glob("p2pmodel-*.whl")):
        raise InvalidInput(f"{printable(str(path))} has no p2pmodel", hint=_HINT)
    files = sorted(_tree_files(path) if tree else path.glob("*.whl"))
    if any(file.suffix == ".pth" for file in files) and tree:
        raise InvalidInput(f"{printable(str(path))} leads to other folders of this machine (.pth)", hint=_HINT)
    raw = io.BytesIO()
    # Without times, owners and names of this machine: the same content is the same version.
    with (
        gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=3, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for file in files:
            archive.add(file, str(file.relative_to(path)), recursive=False, filter=_anonymous)
    found = [_EXTENSION.search(file.name) for file in files]
    pythons = frozenset(f"{match[1]}.{match[2]}" for match in found if match)
    data = raw.getvalue()
    digest = hashlib.sha256(data).hexdigest()[:12]
    return CarriedPackage(digest, "tree" if tree else "wheels", data, pythons if tree else frozenset())


def _tree_files(path: Path) -> list[Path]:
    return [file for file in path.rglob("*") if file.is_file() and not _SKIPPED & set(file.relative_to(path).parts)]


def _anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mtime = 0
    return info


def told(package: CarriedPackage) -> str:
    """What is carried, in words."""
    return f"{package.kind} of {human(len(package.archive))}, version {package.digest}"
