"""A cache that every user of the machine may write to: what another user plants there is not followed or believed."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.disks import Disk, disk
from tests.support.processes import PATIENCE, Nodes, Running, eventually

__all__ = ["disk"]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run an attacker as another user")

REPO = "org/model"
FOLDER = "models--org--model"
STRANGER = 65534
DEAD = "http://127.0.0.1:9"
PROFILE = "export PATH=/usr/bin\n"
SIZES = {"config.json": 30, "a.safetensors": 3_000_001, "b.safetensors": 2_000_000}


class Attacker:
    """Another user with a shell, in a cache that is open to all users."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cache = root / "hub"
        self.cache.mkdir(mode=0o777)
        self.cache.chmod(0o777)
        self.victim = root / "profile"
        """A file of ours that must not change."""
        self.victim.write_text(PROFILE)

    def run(self, script: str, **names: object) -> int:
        """Run `script`, which uses $names, in the cache; its exit code."""
        texts = {name: str(value) for name, value in names.items()}
        texts |= {"PATH": os.environ["PATH"], "victim": str(self.victim), "repo": FOLDER}
        done = subprocess.run(
            ["sh", "-euc", script],
            cwd=self.cache,
            env=texts,
            user=STRANGER,
            group=STRANGER,
            extra_groups=[],
            check=False,
        )
        return done.returncode

    def plant(self, script: str, **names: object) -> None:
        """As `run`, and it must succeed."""
        assert self.run(script, **names) == 0


@pytest.fixture
def attacker() -> Iterator[Attacker]:
    # Not below pytest's own folder, which is closed to other users.
    root = Path(tempfile.mkdtemp(prefix="p2pmodel-shared-"))
    root.chmod(0o755)
    yield Attacker(root)
    shutil.rmtree(root)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for name, size in SIZES.items():
        (folder / name).write_bytes(random.Random(name).randbytes(size))
    return folder


@pytest.fixture
def commit(nodes: Nodes, source: Path) -> str:
    """The snapshot in the cache of node `mirror`."""
    return str(nodes.ok("mirror", "import", source, REPO, "--json").json["commit"])


def etags(nodes: Nodes) -> dict[str, str]:
    [snapshot] = (nodes.cache("mirror") / FOLDER / "snapshots").iterdir()
    return {path.name: path.readlink().name for path in snapshot.iterdir()}


def assert_right(attacker: Attacker, source: Path, commit: str) -> None:
    snapshot = attacker.cache / FOLDER / "snapshots" / commit
    assert {path.name: path.read_bytes() for path in snapshot.iterdir()} == {
        path.name: path.read_bytes() for path in source.iterdir()
    }
    assert attacker.victim.read_text() == PROFILE


@pytest.fixture
def seeder(nodes: Nodes, source: Path) -> str:
    started = nodes.seed(source, "--as", REPO, "--upload-limit", "4000000").ready()
    return str(started["coordinator"])


def fetch(nodes: Nodes, attacker: Attacker, coordinator: str, *more: str) -> Running:
    where = ("--endpoint", DEAD, "--coordinator", coordinator, "--cache-dir", str(attacker.cache))
    return nodes.fetch("node", REPO, *where, *more, P2PMODEL_SWARM_TRUST="coordinator")


def test_planted_files_are_replaced_and_not_followed(
    nodes: Nodes, attacker: Attacker, source: Path, commit: str, seeder: str
) -> None:
    blobs = etags(nodes)
    attacker.plant(
        """
        umask 0
        mkdir -p $repo/blobs $repo/refs $repo/snapshots/$commit $repo/trees $repo/.p2pmodel/staging .locks/$repo
        for etag in $config $a $b; do
            ln -s $victim $repo/.p2pmodel/staging/$etag.part
        done
        mkfifo $repo/refs/main $repo/blobs/$a $repo/blobs/$b.incomplete $repo/trees/$commit.json
        head -c 2000000 /dev/zero > $repo/blobs/$b
        printf '{"etag": "%s", "size": 2000000, "mtime_ns": %s, "inode": %s, "ctime_ns": %s}\\n' $b \\
            $(stat -c '%.9Y' $repo/blobs/$b | tr -d .) $(stat -c %i $repo/blobs/$b) \\
            $(stat -c '%.9Z' $repo/blobs/$b | tr -d .) > $repo/.p2pmodel/verified.jsonl
        ln -s $victim $repo/blobs/$config
        ln -s $victim $repo/snapshots/$commit/config.json
        """,
        commit=commit,
        config=blobs["config.json"],
        a=blobs["a.safetensors"],
        b=blobs["b.safetensors"],
    )
    done = fetch(nodes, attacker, seeder).wait()
    assert done.code == 0, done.err
    assert_right(attacker, source, commit)
    assert (attacker.cache / FOLDER / "refs" / "main").read_text() == commit
    own = attacker.cache / FOLDER / f".p2pmodel-{os.geteuid()}"
    assert (own.stat().st_uid, own.stat().st_mode & 0o777) == (0, 0o700)
    assert attacker.run("echo forged >> $journal", journal=own / "verified.jsonl") != 0


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("mkdir -p $repo .locks/$repo; mkfifo .locks/$repo/$a.lock", "not a regular file at"),
        ("mkdir -p $repo .locks; ln -s $away .locks/$repo", "a link that another user made"),
        ("mkdir -p $repo; ln -s $away $repo/blobs", "a link that another user made"),
        ("mkdir -p $repo; ln -s $away $repo/snapshots", "a link that another user made"),
        ("ln -s $away $repo", "a link that another user made"),
        (
            "mkdir -p $repo; ln -s $away $repo/.p2pmodel; mkdir $repo/.p2pmodel-0",
            "/.p2pmodel: a link that another user",
        ),
        ("mkdir -p $repo/.p2pmodel $repo/.p2pmodel-0", "/.p2pmodel: it belongs to another user"),
    ],
)
def test_what_cannot_be_replaced_is_one_clear_line(
    nodes: Nodes, attacker: Attacker, commit: str, script: str, message: str
) -> None:
    endpoint, _ = nodes.mirror()
    away = attacker.root / "away"
    away.mkdir()
    away.chmod(0o777)
    attacker.plant("umask 0;" + script, away=away, a=etags(nodes)["a.safetensors"], commit=commit)
    done = nodes.run("node", "fetch", "-q", REPO, "--endpoint", endpoint, "--cache-dir", str(attacker.cache))
    assert (done.code, done.out, done.err.count("\n")) == (7, "", 1), done
    assert message in done.err
    assert "remove it" in done.err
    assert list(away.iterdir()) == []


def test_a_folder_that_is_swapped_during_a_fetch_catches_nothing(
    nodes: Nodes, attacker: Attacker, source: Path, commit: str, seeder: str
) -> None:
    attacker.plant("umask 0; mkdir $repo")
    running = fetch(nodes, attacker, seeder, "--download-limit", "1500000")
    eventually(lambda: running.progress().get("done", 0) > 500_000, PATIENCE, lambda: "".join(running.err))
    attacker.plant(
        """
        umask 0
        mkdir -p away/staging away/tmp away/links
        for etag in $config $a $b; do
            ln -s $victim away/staging/$etag.part
        done
        ln -s $(pwd)/away planted
        turn=0
        until [ -L $repo/.p2pmodel ]; do  # the fetch may make its folder again between the two moves
            turn=$((turn + 1))
            mv -T $repo/.p2pmodel $repo/moved-$turn || true
            mv -T planted $repo/.p2pmodel || true
        done
        """,
        commit=commit,
        **{name[0] if name != "config.json" else "config": etag for name, etag in etags(nodes).items()},
    )
    done = running.wait()
    assert done.code == 0, done.err
    assert_right(attacker, source, commit)
    assert not list((attacker.cache / "away" / "tmp").iterdir())


def test_a_link_in_the_place_of_a_blob_is_not_served(
    nodes: Nodes, attacker: Attacker, source: Path, commit: str
) -> None:
    nodes.ok("node", "import", source, REPO, "--cache-dir", str(attacker.cache))
    (attacker.cache / FOLDER / "blobs").chmod(0o777)
    secret = attacker.root / "secret"
    secret.write_bytes(b"s" * SIZES["config.json"])
    secret.chmod(0o600)
    endpoint, _ = nodes.mirror("--cache-dir", str(attacker.cache), node="node", log="shared.log")
    url = f"{endpoint}/{REPO}/resolve/{commit}/config.json"
    assert urllib.request.urlopen(url, timeout=PATIENCE).read() == (source / "config.json").read_bytes()
    blob = f"$repo/blobs/{etags(nodes)['config.json']}"
    for planted in ("ln -s $secret", "ln -s /etc/hostname", "mkfifo"):
        attacker.plant(f"rm -f {blob}; {planted} {blob}", secret=secret)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(url, timeout=PATIENCE)
        assert refused.value.code in (404, 503)
        refused.value.close()


def test_kill_minus_nine_leaves_no_wrong_blob_on_another_device(
    nodes: Nodes, attacker: Attacker, source: Path, seeder: str, disk: Callable[[Path, str], Disk]
) -> None:
    blobs = attacker.cache / FOLDER / "blobs"
    disk(blobs, "64m")
    running = fetch(nodes, attacker, seeder)
    while running.process.poll() is None and not any(blobs.iterdir()):
        pass
    running.stop(signal.SIGKILL)
    for blob in blobs.iterdir():
        if "." not in blob.name and len(blob.name) == 64:
            assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    done = fetch(nodes, attacker, seeder).wait()
    assert done.code == 0, done.err
    assert_right(attacker, source, str(json.loads(done.out)["commit"]))
