"""The benchmark scripts/bench/private: what a private swarm gives to hosts without a right, and what it costs."""

import argparse
import datetime as dt
import json
import os
import secrets
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2pmodel.trust.certificates import Authority, AuthorityFolder, NodeKey
from scripts.bench.rigs import namespaces
from scripts.bench.rigs.cluster import Cluster, Host
from scripts.bench.rigs.machine import P2PMODEL, describe_machine, environment
from scripts.bench.rigs.programs import Program
from scripts.bench.rigs.reports import write_json
from scripts.bench.rigs.snapshots import write_model
from scripts.bench.rigs.wire_counters import count, sent

REPO = "bench/private"
PLAIN, TLS, SOURCE, HTTP = 6881, 6883, 6884, 6969
LISTED = ("none", "other_ca", "expired", "other_commit", "plain")
"""Intruders at addresses that are admitted, so that the certificate alone holds them off."""
UNLISTED = "unlisted"
FETCH_SECONDS = 300.0
SLOW = "2MB"
SETTLES = 2.0
"""Seconds after a revocation within which the last byte must have come."""


@dataclass(frozen=True, slots=True)
class Row:
    """What one host got. `wire`: bytes on the wire from the seeder's swarm or HTTP port, handshakes included."""

    name: str
    payload: int
    wire: int
    note: str


class PrivateRig:
    """The hosts, the authority and the snapshot below `place`."""

    def __init__(self, options: argparse.Namespace, place: Path, stack: ExitStack) -> None:
        self.options, self.place, self._stack = options, place, stack
        cluster = Cluster(stack)
        self.seeder, self.node, self.gone = (cluster.host(name, None) for name in ("seeder", "node", "gone"))
        self.peers = [cluster.host(f"peer{number}", None) for number in range(options.nodes)]
        self.intruders = {name: cluster.host(name, None) for name in (*LISTED, UNLISTED, "http")}
        self.source = place / "source"
        self.source.mkdir()
        self.size = write_model(self.source, options.size_mb * 1_000_000)
        self.authority = AuthorityFolder(place / "ca")
        now = dt.datetime.now(dt.UTC)
        self.authority.init("bench", now=now - dt.timedelta(days=1), days=3)
        self.authority.issue(self.seeder.address, [self.seeder.address], now=now, days=1)
        self.token = place / "token"
        self.token.touch(mode=0o600)
        self.token.write_text(secrets.token_hex(16))
        self.publisher = place / "publisher.token"
        self.publisher.touch(mode=0o600)
        self.publisher.write_text(secrets.token_hex(16))
        self.config = place / "seeder.toml"
        self.url = ""
        count(self.seeder, [self.node, self.gone, *self.intruders.values()], [PLAIN, TLS, SOURCE, HTTP])

    def seed(self, *options: str, private: bool) -> tuple[Program, Mapping[str, Any]]:
        """Start the seeder with further options, a private one with HTTPS; its first line."""
        self.write_config(())
        self.url = f"{'https' if private else 'http'}://{self.seeder.address}:{HTTP}"
        listen = ["--listen", f"{self.seeder.address}:{HTTP}", "--swarm-listen", f"{self.seeder.address}:{PLAIN}"]
        pair = (self.authority.path / f"{self.seeder.address}.{kind}" for kind in ("crt", "key"))
        tls = [
            text for option, path in zip(("--tls-cert", "--tls-key"), pair, strict=True) for text in (option, str(path))
        ]
        command = [
            *P2PMODEL,
            "seed",
            str(self.source),
            "--as",
            REPO,
            *(["--private", *tls] if private else []),
            *listen,
            *options,
        ]
        more = [
            "--token-file",
            str(self.token),
            "--publish-token-file",
            str(self.publisher),
            "--config",
            str(self.config),
            "--json",
            "--progress",
            "json",
        ]
        log = self.place / "seeder.log"
        log.unlink(missing_ok=True)
        program = self._start(self.seeder, "seeder", [*command, *more], log=log)
        return program, program.first(120)

    def write_config(self, revoked: Sequence[str]) -> None:
        """The settings of the seeder."""
        names = ", ".join(f'"{each}"' for each in revoked)
        where = f'ca_file = "{self.authority.certificate}"\nca_key = "{self.authority.key}"\n'
        self.config.write_text(f"[private]\n{where}revoked = [{names}]\n")
        self.config.chmod(0o600)

    def fetch(self, host: Host, home: str, *options: str) -> Program:
        """Start a fetch on `host`."""
        listen = ["--swarm-listen", f"{host.address}:{PLAIN}", "--endpoint", "http://127.0.0.1:9"]
        command = [
            *P2PMODEL,
            "fetch",
            REPO,
            "--coordinator",
            self.url,
            *listen,
            "--json",
            "--progress",
            "json",
            *options,
        ]
        return self._start(host, home, command, log=self.place / f"{home}.log")

    def intrude(self, name: str, torrent: Path, pair: Sequence[Path]) -> Program:
        """Start an intruder with a certificate and key, or without."""
        host, folder = self.intruders[name], self.place / f"got-{name}"
        folder.mkdir()
        where = [torrent, folder, self.options.seconds, host.address, self.seeder.address, TLS, PLAIN]
        command = [sys.executable, "-m", "scripts.bench.rigs.intruder", *map(str, (*where, *pair))]
        return self._start(host, name, command, PLAIN="1" if name == "plain" else "0")

    def stubborn(self, host: Host, info_hash: str) -> Callable[[], int]:
        """Start a node with the publisher's token that goes on after it was put out; returns its bytes so far."""
        where = [self.url, str(self.publisher), info_hash, str(self.place), host.address]
        peers = [f"{each.address}:{TLS}" for each in (self.seeder, self.node)]
        command = [sys.executable, "-m", "scripts.bench.rigs.stubborn", *where, *peers]
        log = self.place / "stubborn.log"
        program = self._start(host, "stubborn", command, log=log, AUTHORITY=str(self.authority.certificate))

        def payload() -> int:
            if program.ended:
                raise SystemExit(f"the revoked node ended: {log.read_text()[-500:]}")
            return int(json.loads(program.lines[-1][1])["payload"]) if program.lines else 0

        return payload

    def progress(self, home: str) -> dict[str, Any]:
        """The last progress report of a program."""
        lines = (self.place / f"{home}.log").read_text().splitlines()
        found = [line for line in lines if line.startswith("{") and '"phase"' in line]
        return dict(json.loads(found[-1])) if found else {}

    def uploaded(self) -> int:
        """Payload bytes that the seeder has sent to peers, as it reports."""
        return int(self.progress("seeder").get("uploaded", 0))

    def _start(self, host: Host, home: str, command: list[str], *, log: Path | None = None, **env: str) -> Program:
        own = {"P2PMODEL_COORDINATOR_CA_FILE": str(self.authority.certificate)}
        own |= {"P2PMODEL_COORDINATOR_TOKEN_FILE": str(self.token), "PYTHONPATH": os.getcwd()}  # noqa: PTH109
        return Program(host.inside(command), self._stack, env=environment(self.place / home) | own | env, log=log)


def main(options: argparse.Namespace) -> None:
    """Run the benchmark, print its table, and exit with 1 if a host got what it should not."""
    if reason := namespaces.unavailable() or ("" if shutil.which("nft") else "it needs nft (Debian: nftables)"):
        raise SystemExit(f"scripts/bench/private cannot run: {reason}")
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="p2pb-")))
        rig = PrivateRig(options, place, stack)
        sys.stdout.write(f"{describe_machine()}; snapshot of {rig.size} bytes\n")
        rows, entitled = _intrusions(rig)
        rows.append(_revocation(rig))
        rows.append(_shared_address(rig))
        copies = {kind: _copies(rig, private=kind == "private") for kind in ("public", "private")}
        seconds = {kind: _seconds(rig, private=kind == "private") for kind in ("public", "private")}
    _print(rows, entitled, seconds, rig.size)
    for kind, (sent_copies, last) in copies.items():
        sys.stdout.write(f"{options.nodes} nodes, {kind}: {sent_copies:.2f} copies sent, the last after {last:.2f} s\n")
    report = {"rows": [vars_of(row) for row in rows], "entitled": vars_of(entitled), "seconds": seconds}
    report["copies"] = {"nodes": options.nodes, "upload": options.upload, **copies}
    write_json(options.json, report | {"size": rig.size})
    if any(row.payload for row in rows) or entitled.payload < rig.size:
        raise SystemExit(1)


def vars_of(row: Row) -> dict[str, Any]:
    """A row for JSON."""
    return {"name": row.name, "payload": row.payload, "wire": row.wire, "note": row.note}


def _intrusions(rig: PrivateRig) -> tuple[list[Row], Row]:
    """All intruders at once, while an entitled node downloads, and serves afterwards."""
    seeder, ready = rig.seed(private=True)
    commit = str(ready["commit"])
    torrent = rig.place / "stolen.torrent"
    torrent.write_bytes(_torrent(rig, str(ready["info_hash"])))
    # Addresses that an entitled node advertises are admitted: so the certificates alone hold these intruders off.
    claimed = [text for name in LISTED for text in ("--advertise", rig.intruders[name].address)]
    node = rig.fetch(rig.node, "node", *claimed, "--seed-time", "600")
    _until(lambda: bool(node.lines) or node.ended, "the entitled node finished", FETCH_SECONDS)
    pairs = _certificates(rig, commit)
    running = {name: rig.intrude(name, torrent, pairs.get(name, ())) for name in (*LISTED, UNLISTED)}
    rows = []
    for name, program in running.items():
        found = program.first(rig.options.seconds + 60)
        rows.append(Row(name, int(found["payload"]), 0, f"{found['tried']} connections; {_short(found['reason'])}"))
    wire = sent(rig.seeder)
    rows = [Row(row.name, row.payload, wire[row.name], row.note) for row in rows]
    rows += _http_intrusions(rig, commit, pairs)
    uploaded = rig.uploaded()
    entitled = Row("node", uploaded, wire["node"], f"seeder's own count; finished: {bool(node.lines)}")
    for program in (node, seeder):
        _stop(program)
    return rows, entitled


def _revocation(rig: PrivateRig) -> Row:
    """A node is revoked while it downloads: what it gets later than `SETTLES` seconds afterwards."""
    seeder, _ = rig.seed(private=True)
    before = sent(rig.seeder)["gone"]
    node = rig.fetch(rig.gone, "gone", "--download-limit", SLOW)
    _until(lambda: sent(rig.seeder)["gone"] - before > 4_000_000, "the revoked node downloads", 60)
    rig.write_config([rig.gone.address])
    os.kill(seeder.pid, signal.SIGHUP)
    at = sent(rig.seeder)["gone"]
    time.sleep(SETTLES)
    after = sent(rig.seeder)["gone"]
    time.sleep(SETTLES)
    late = sent(rig.seeder)["gone"] - after
    _until(lambda: node.ended, "the revoked fetch ended", 60)
    _stop(seeder)
    note = f"{after - at} bytes within {SETTLES:g} s of the revocation, then {late}; exit code {node.exit_code}"
    return Row("revoked", late if late > _HANDSHAKES else 0, after - before, note)


def _shared_address(rig: PrivateRig) -> Row:
    """A node is revoked at the address of another one, and goes on with its certificate: what it gets later than
    `SETTLES` seconds afterwards, until the other one has finished."""
    seeder, ready = rig.seed(private=True)
    before = sent(rig.seeder)["gone"]
    holder = rig.fetch(rig.node, "holder", "--seed-time", "600")
    _until(lambda: bool(holder.lines), "another node has the snapshot", FETCH_SECONDS)
    stubborn = rig.stubborn(rig.gone, str(ready["info_hash"]))
    stays = rig.fetch(rig.gone, "stays", "--download-limit", SLOW)
    _until(lambda: stubborn() > 0 and bool(rig.progress("stays").get("from_peers")), "both download", 60)
    rig.write_config([rig.publisher.stem])
    os.kill(seeder.pid, signal.SIGHUP)
    at = stubborn()
    time.sleep(SETTLES)
    after = stubborn()
    _until(lambda: stays.ended, "the other node has finished", FETCH_SECONDS)
    late, code, seeders = stubborn() - after, stays.exit_code, rig.progress("stays").get("from_seeders", 0)
    for program in (holder, seeder):
        _stop(program)
    note = f"{after - at} bytes within {SETTLES:g} s; the other node: exit code {code}, {seeders} over HTTP"
    return Row("shared address", late, sent(rig.seeder)["gone"] - before, note)


_HANDSHAKES = 20_000
"""Bytes of refused requests and handshakes in two seconds."""


def _seconds(rig: PrivateRig, *, private: bool) -> list[float]:
    """Seconds of each fetch of the whole snapshot from the seeder, without the start of the process."""
    seeder, _ = rig.seed(private=private)
    found = []
    for number in range(rig.options.runs):
        node = rig.fetch(rig.node, f"timed-{private}-{number}")
        found.append(float(node.first(FETCH_SECONDS)["download_seconds"]))
        _until(lambda node=node: node.ended, "the fetch ended", 60)  # type: ignore[misc]
        shutil.rmtree(rig.place / f"timed-{private}-{number}", ignore_errors=True)
    _stop(seeder)
    return found


def _certificates(rig: PrivateRig, commit: str) -> dict[str, tuple[Path, Path]]:
    """A certificate and key for each intruder that has one."""
    now = dt.datetime.now(dt.UTC)
    ours = Authority.read(rig.authority.certificate, rig.authority.key)
    other, _ = Authority.new("other", now=now, days=1)
    made: Sequence[tuple[str, Authority, str, dt.datetime]] = (
        ("other_ca", other, commit, now),
        ("expired", ours, commit, now - dt.timedelta(hours=2)),
        ("other_commit", ours, "b" * 40, now),
        (UNLISTED, ours, commit, now),
    )
    found = {}
    for name, authority, named, at in made:
        node = NodeKey.new()
        found[name] = (rig.place / f"{name}.crt", rig.place / f"{name}.key")
        pem = authority.sign(node.request.encode(), name, [named], now=at, seconds=3600)
        found[name][0].write_bytes(pem)
        found[name][1].write_text(node.key)
    return found


def _torrent(rig: PrivateRig, info_hash: str) -> bytes:
    """The .torrent, as a member reads it from the catalog."""
    return _get(rig.node, rig, f"{rig.url}/catalog/torrents/{info_hash}.torrent")[1]


def _http_intrusions(rig: PrivateRig, commit: str, pairs: Mapping[str, Sequence[Path]]) -> list[Row]:
    """The same intruders ask the HTTP source for a shard, and a member with its token the coordinator's own."""
    path = f"{REPO}/resolve/{commit}/{min(each.name for each in rig.source.glob('*.safetensors'))}"
    rows = []
    for name in (*(each for each in LISTED if each != "plain"), UNLISTED):
        host, before, out = rig.intruders[name], sent(rig.seeder)[name], rig.place / f"shard-{name}"
        where = ["--resolve", f"{commit}:{SOURCE}:{rig.seeder.address}", f"https://{commit}:{SOURCE}/{path}"]
        pair = [
            text
            for pem, option in zip(pairs.get(name, ()), ("--cert", "--key"), strict=False)
            for text in (option, pem)
        ]
        command = ["curl", "-s", "-f", "-k", "-S", "-m", "20", "-o", str(out), *map(str, pair), *where]
        done = subprocess.run(host.inside(command), capture_output=True, text=True, check=False)
        payload = out.stat().st_size if out.exists() else 0
        wire = sent(rig.seeder)[name] - before
        rows.append(Row(f"http {name}", payload, wire, done.stderr.strip().rpartition(") ")[2] or "finished"))
    before = sent(rig.seeder)["http"]
    status, body = _get(rig.intruders["http"], rig, f"{rig.url}/source/{path}")
    payload = len(body) if status in (200, 206) else 0
    return [*rows, Row("http token", payload, sent(rig.seeder)["http"] - before, f"HTTP {status}")]


def _copies(rig: PrivateRig, *, private: bool) -> tuple[float, float]:
    """All peers fetch at once: the copies that the seeder sends, and the seconds of the slowest."""
    seeder, _ = rig.seed("--upload-limit", rig.options.upload, private=private)
    homes = [f"{peer.name}-{private}" for peer in rig.peers]
    nodes = [rig.fetch(peer, home, "--seed-time", "600") for peer, home in zip(rig.peers, homes, strict=True)]
    slowest = max(float(node.first(FETCH_SECONDS)["download_seconds"]) for node in nodes)
    time.sleep(SETTLES)  # the seeder reports every half second
    copies = rig.uploaded() / rig.size
    for program in (*nodes, seeder):
        _stop(program)
    for home in homes:
        shutil.rmtree(rig.place / home, ignore_errors=True)
    return copies, slowest


def _get(host: Host, rig: PrivateRig, url: str) -> tuple[int, bytes]:
    """Ask with the members' token, from `host`."""
    out = rig.place / f"answer-{host.name}"
    command = ["curl", "-s", "--cacert", str(rig.authority.certificate), "-o", str(out), "-w", "%{http_code}"]
    command += ["-H", f"@{_header(rig)}", url]
    done = subprocess.run(host.inside(command), check=True, capture_output=True, text=True, timeout=60)
    return int(done.stdout), out.read_bytes() if out.exists() else b""


def _header(rig: PrivateRig) -> Path:
    path = rig.place / "header"
    path.touch(mode=0o600)
    path.write_text(f"Authorization: Bearer {rig.token.read_text()}\n")
    return path


def _short(reason: str) -> str:
    """What libtorrent says, without addresses."""
    return reason.rpartition("]: ")[2].partition(" (")[0] or "no connection ended"


def _until(met: Callable[[], bool], what: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {seconds:g} s: {what}")
        time.sleep(0.05)


def _stop(program: Program) -> None:
    if not program.ended:
        os.kill(program.pid, signal.SIGTERM)
        _until(lambda: program.ended, "a process ended", 30)


def _print(rows: Sequence[Row], entitled: Row, seconds: Mapping[str, list[float]], size: int) -> None:
    print = lambda text: sys.stdout.write(f"{text}\n")  # noqa: A001, E731
    print(f"{'host':18}{'payload':>12}{'wire':>12}  note")
    for row in (*rows, entitled):
        print(f"{row.name:18}{row.payload:>12}{row.wire:>12}  {row.note}")
    public, private = (statistics.median(seconds[kind]) for kind in ("public", "private"))
    print(
        f"public {public:.2f} s ({size / public / 1e6:.0f} MB/s), private {private:.2f} s, ratio {private / public:.2f}"
    )
