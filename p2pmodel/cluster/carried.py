"""The files that a roll-out carries to its hosts: settings, and p2pmodel itself where it is not installed.

The settings are those of the mirrors, as the launcher uses them. They become a settings file in `cluster/` of the
host's state folder (P2PMODEL_CLUSTER_CONFIG). It stands above the host's own one, so what that one says of anything
else holds. Names of files with credentials go along as they are, for hosts that have the same files; contents of such
files, tokens and passwords only on request. They travel through the connection alone, and no other user of the host
can read them.

The program is a folder of wheels, or a tree of `pip install --target`, for hosts without the internet. It is carried
once, to `versions/` of the host's state folder. There a version is complete or absent.
"""

import asyncio
import configparser
import gzip
import hashlib
import io
import re
import secrets
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from p2pmodel.cluster.launcher import HostLook, RemoteHost
from p2pmodel.config.sections.mirrors import OFFICIAL_ENDPOINT, S3, MirrorSettings, OriginSettings
from p2pmodel.config.settings_file import CLUSTER_VARIABLE
from p2pmodel.core.content.names import printable
from p2pmodel.core.files.own_files import read_own
from p2pmodel.core.sizes import human
from p2pmodel.errors import InvalidInput, LocalResource
from p2pmodel.origin.s3.client import BucketPlace, credentials_of

FILE = "p2pmodel.toml"
_ORIGIN = ("part_size", "connect_timeout", "read_timeout", "patience", "allowed_networks")
"""Settings of all mirrors that a cluster shares; its proxies are in the environment of each host."""
CarriedCredentials = Literal["none", "named", "carried"]
"""How files with credentials are carried: not at all, by name, or with their contents, tokens and passwords."""
_SECRET_FILES = ("token_file", "certificate", "key", "s3_credentials_file")

_INSTALL = r"""
set -e
umask 077
dir=$1 run=$2
[ "$(cat "$dir/run" 2>/dev/null)" = "$run" ] && exit 0
new=$dir.new.$$ old=$dir.old.$$
trap 'rm -rf "$new" "$old"' EXIT
mkdir -p "$new"
tar -xf - -C "$new"
printf '%s' "$run" >"$new/run"
[ ! -d "$dir" ] || mv "$dir" "$old"
mv "$new" "$dir"
"""


@dataclass(frozen=True, slots=True)
class CarriedSettings:
    """The files to carry, by name; the settings file is one of them. `kept`: what stays behind, a sentence each.

    `run` tells one roll-out from the next: a host gets the files once in each. It follows from nothing secret.
    """

    files: Mapping[str, bytes] = field(repr=False)
    kept: tuple[str, ...] = ()
    run: str = field(default_factory=lambda: secrets.token_hex(8))

    async def onto(self, host: RemoteHost, look: HostLook) -> dict[str, str]:
        """Put the files there, in the place of those of an earlier roll-out. Returns the environment that leads to
        them. Raises LocalResource with the reason of the host."""
        folder = f"{look.state_dir}/cluster/settings"
        done = await host.run(["sh", "-c", _INSTALL, "sh", folder, self.run], stdin=self._archive())
        if done.code:
            what = f"{host.name}: the settings were not written there: {printable(done.reason, 300)}"
            raise LocalResource(what, hint="check its disk, and that it has tar")
        return {CLUSTER_VARIABLE: f"{folder}/{FILE}"}

    def _archive(self) -> bytes:
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w") as archive:
            for name, data in self.files.items():
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(data), 0o600
                archive.addfile(entry, io.BytesIO(data))
        return raw.getvalue()


def carried_settings(
    mirrors: tuple[MirrorSettings, ...], origin: OriginSettings, *, credentials: CarriedCredentials
) -> CarriedSettings:
    """What to carry of these settings. Raises InvalidInput for a file that cannot be read. Blocks."""
    import tomli_w  # noqa: PLC0415 - of the extra

    files: dict[str, bytes] = {}
    tables = [_table(mirror, str(place), files, credentials) for place, mirror in enumerate(mirrors)]
    shared = origin.model_dump(include=set(_ORIGIN), exclude_defaults=True)
    plain: dict[str, Any] = {"mirrors": tables} | ({"origin": _plain(shared)} if shared else {})
    files[FILE] = tomli_w.dumps(plain).encode()
    kept = () if credentials == "carried" else tuple(filter(None, map(_kept, mirrors)))
    return CarriedSettings(files, kept)


def _table(
    mirror: MirrorSettings, place: str, files: dict[str, bytes], credentials: CarriedCredentials
) -> dict[str, Any]:
    """The table of a mirror. Files that go along are put into `files`, under names relative to the settings file."""
    table = _plain(mirror.model_dump(exclude_defaults=True, exclude={"token"}))
    if mirror.ca_file is not None:
        files[name := f"{place}-ca.pem"] = read_own(mirror.ca_file, "file of authorities").encode()
        table["ca_file"] = name
    if credentials == "none":
        table = {key: value for key, value in table.items() if key not in _SECRET_FILES}
    elif credentials == "carried":
        _add_credentials(mirror, place, table, files)
    return table


def _add_credentials(mirror: MirrorSettings, place: str, table: dict[str, Any], files: dict[str, bytes]) -> None:
    for key in ("token_env", "token_file"):
        table.pop(key, None)
    if mirror.token is not None:
        table["token"] = mirror.token.get_secret_value()
    for key, path in (("certificate", mirror.certificate), ("key", mirror.key)):
        if path is not None:
            secret = key == "key" or mirror.key is None  # a certificate with its key in the same file
            files[name := f"{place}-{key}.pem"] = read_own(path, key, secret=secret).encode()
            table[key] = name
    if mirror.endpoint.startswith(S3) and (found := credentials_of(BucketPlace.of(mirror))):
        files[name := f"{place}-s3.ini"] = _aws_file(mirror.s3_profile or "default", found).encode()
        table["s3_credentials_file"] = name


def _aws_file(profile: str, values: Mapping[str, str]) -> str:
    """Credentials as AWS programs read them."""
    parser = configparser.RawConfigParser(default_section="")
    parser.read_dict({profile: dict(values)})
    text = io.StringIO()
    parser.write(text)
    return text.getvalue()


def _kept(mirror: MirrorSettings) -> str:
    """A sentence about the files and variables that a host needs for the mirror beside its settings; "" for none."""
    named = [f"{key} {printable(str(value))}" for key in _SECRET_FILES if (value := getattr(mirror, key)) is not None]
    if mirror.token_env is not None:
        named.append(f"the variable {mirror.token_env}")
    elif mirror.token is not None and not mirror.token_file and mirror.endpoint != OFFICIAL_ENDPOINT:
        named.append("its token")
    if not named:
        return ""
    return f"the credentials of the mirror {mirror.name} stay here: {', '.join(named)}"


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """As TOML has values: without tuples and paths."""
    return {key: list(v) if isinstance(v, tuple) else str(v) if isinstance(v, Path) else v for key, v in values.items()}


INSTALL_SECONDS = 600.0
_HINT = "name a folder of wheels with p2pmodel's, or what 'pip install --target FOLDER p2pmodel' has made"
_EXTENSION = re.compile(r"\.cpython-(3)(\d+)-")
_SKIPPED = {"__pycache__", "bin"}

_INSTALL_PACKAGE = r"""
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
        command = ["sh", "-c", _INSTALL_PACKAGE, "sh", self._folder(look), self.kind]
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
        raise InvalidInput(f"{printable(str(path))} does not contain p2pmodel", hint=_HINT)
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


def described(package: CarriedPackage) -> str:
    """The package in words."""
    return f"{package.kind} of {human(len(package.archive))}, version {package.digest}"
