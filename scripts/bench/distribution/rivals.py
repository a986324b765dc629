"""Other programs: plain libtorrent, qBittorrent, aria2, and `hf download` from a mirror behind the seeder's link."""

import sys
from collections.abc import Callable
from pathlib import Path

from p2pmodel.swarm.bencode import decode_dict, encode
from scripts.bench.distribution.contestants import (
    COORDINATOR_PORT,
    MIRROR_PORT,
    PEER_PORT,
    REPO,
    SEED_SECONDS,
    Contestant,
    Gate,
    RunSite,
    Sources,
    start_mirror,
    start_seeder,
    url_of,
)
from scripts.bench.rigs.cluster import Host
from scripts.bench.rigs.programs import Program


def rival(name: str) -> Contestant:
    """The contestant of that name, one of RIVALS."""
    return {"hf": _HF, "libtorrent": _LIBTORRENT, "qbittorrent": _QBITTORRENT, "aria2": _ARIA2}[name]


def _hf_sources(site: RunSite) -> Sources:
    """The mirror takes the seeder's place, so that its link is the same."""
    mirror = start_mirror(site, site.seeder)
    mirror.first()
    return Sources(Gate(mirror, site.seeder, MIRROR_PORT), {"mirror": mirror})


def _hf(site: RunSite, _host: Host, _home: Path) -> list[str]:
    program = "from huggingface_hub.cli.hf import main; main()"
    where = f"HF_ENDPOINT={url_of(site.seeder, MIRROR_PORT)}"
    return ["env", where, sys.executable, "-c", program, "download", REPO]


def _torrent_sources(form: str) -> Callable[[RunSite], Sources]:
    def sources(site: RunSite) -> Sources:
        seeder = start_seeder(site, *([form] if form != "v2" else []))
        seeder.first()
        torrent = site.place / "model.torrent"
        url = f"{url_of(site.seeder, COORDINATOR_PORT)}/catalog?repo={REPO}&revision=main&format={form}"
        code = (
            f"import sys, urllib.request as r; open({str(torrent)!r}, 'wb').write(r.urlopen({url!r}).read()); print(0)"
        )
        Program(site.seeder.inside([sys.executable, "-c", code]), site.stack).finish()
        # Without web seeds: this measures their swarm alone.
        whole = decode_dict(torrent.read_bytes())[0]
        torrent.write_bytes(encode({key: value for key, value in whole.items() if key != b"url-list"}))
        gate = Gate(seeder, site.seeder, COORDINATOR_PORT)
        return Sources(gate, {"seeder": seeder})

    return sources


def _libtorrent(site: RunSite, host: Host, home: Path) -> list[str]:
    program = [sys.executable, "-m", "scripts.bench.distribution.plain_client"]
    return [*program, str(site.place / "model.torrent"), str(home), host.address]


def _hook(home: Path) -> Path:
    hook = home / "complete.sh"
    hook.write_text(f"#!/bin/sh\ntouch '{home}/complete'\n")
    hook.chmod(0o755)
    return hook


def _aria2(site: RunSite, _host: Host, home: Path) -> list[str]:
    off = ["--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false", "--no-conf", "-q"]
    keep = [f"--dir={home}", "--file-allocation=none", f"--seed-time={SEED_SECONDS}", f"--listen-port={PEER_PORT}"]
    hook = f"--on-bt-download-complete={_hook(home)}"
    return ["aria2c", *off, *keep, hook, str(site.place / "model.torrent")]


_QBITTORRENT_CONFIG = """\
[LegalNotice]
Accepted=true

[AutoRun]
enabled=true
program={hook}

[BitTorrent]
Session\\DHTEnabled=false
Session\\LSDEnabled=false
Session\\Port=6881
Session\\DefaultSavePath={home}/downloads

[Network]
PortForwardingEnabled=false

[Preferences]
WebUI\\UseUPnP=false
"""


def _qbittorrent(site: RunSite, _host: Host, home: Path) -> list[str]:
    config = home / "qBittorrent/config/qBittorrent.conf"
    config.parent.mkdir(parents=True)
    config.write_text(_QBITTORRENT_CONFIG.format(home=home, hook=_hook(home)))
    return ["qbittorrent-nox", f"--profile={home}", str(site.place / "model.torrent")]


_HF = Contestant("hf", "exit", _hf_sources, _hf)
_LIBTORRENT = Contestant("libtorrent", "line", _torrent_sources("v2"), _libtorrent)
_QBITTORRENT = Contestant("qbittorrent", "mark", _torrent_sources("v2"), _qbittorrent)
_ARIA2 = Contestant("aria2", "mark", _torrent_sources("v1"), _aria2)
