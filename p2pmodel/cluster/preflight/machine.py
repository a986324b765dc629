"""The facts of this machine, from the operating system. Blocks: call in a thread."""

import os
import resource
import shutil
import socket
import subprocess
from pathlib import Path

from p2pmodel.cluster.preflight.checks import WEIGHTS, GpuFact, PortFact, SnapshotNeed
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import printable
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.errors import P2PModelError
from p2pmodel.node.host_stats import link_speed
from p2pmodel.node.local_address import (
    PEER_PORT,
    PIECE_PORT,
    PRIVATE_PORT,
    PRIVATE_SOURCE_PORT,
    SOURCE_PORT,
    engine_count,
    local_address,
)
from p2pmodel.store.cache import HubCache
from p2pmodel.store.files.space import check_writable
from p2pmodel.swarm.split.named_peers import further_port

GPU_SECONDS = 20.0
_SHA_FLAGS = {"sha_ni", "sha2"}
_NVIDIA = ("nvidia-smi", "--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits")


def need_of(cache: HubCache, manifest: Manifest) -> SnapshotNeed:
    """What `cache` lacks of the snapshot; each content counts once."""
    repo = cache.repo(manifest.repo)
    lacking = list({file.etag: file for file in repo.lacking(manifest.files)}.values())
    weights = sum(file.size for file in manifest.files if file.path.endswith(WEIGHTS))
    return SnapshotNeed(
        str(manifest.repo),
        manifest.commit,
        manifest.total_size,
        sum(file.size for file in lacking),
        repo.staged.size_of(lacking),
        weights,
    )


def unwritable(cache_dir: Path) -> str:
    """Why files cannot be made in `cache_dir`; ""."""
    try:
        check_writable(cache_dir)
    except P2PModelError as error:
        return error.what
    return ""


def open_files() -> int:
    """The hard limit of open files."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 1 << 20 if hard == resource.RLIM_INFINITY else hard


def cores(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[int, int]:
    """The cores that this process may use, and how many of them have SHA instructions."""
    usable = len(os.sched_getaffinity(0))
    try:
        lines = cpuinfo.read_text(errors="replace").splitlines()
    except OSError:
        return usable, 0
    flags = [set(line.partition(":")[2].split()) for line in lines if line.lower().startswith(("flags", "features"))]
    return usable, min(usable, sum(bool(each & _SHA_FLAGS) for each in flags))


def memory(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Bytes of memory that are available; 0 where the system does not say."""
    try:
        lines = meminfo.read_text(errors="replace").splitlines()
    except OSError:
        return 0
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found and found[0].isdigit() else 0


def gpus(command: tuple[str, ...] = _NVIDIA) -> tuple[GpuFact, ...] | None:
    """The GPUs that nvidia-smi lists; None without it."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GPU_SECONDS, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(filter(None, map(_gpu, done.stdout.splitlines())))


def ports(settings: Settings) -> tuple[PortFact, ...]:
    """The ports of a daemon with these settings that does not run yet."""
    configured = settings.swarm.listen
    if configured is not None:
        peer = ListenAddress.parse(configured)
        host, fixed = peer.host, peer.port != 0
        wanted = [("peers", peer.port, fixed)]
    else:
        routes = (local_address(url) for url in settings.coordinators)
        host = next((each for each in routes if each), "")
        wanted = [("peers", PEER_PORT, False)]
    if not host or ListenAddress(host, 0).loopback:
        return ()
    count = engine_count(settings.swarm, cores=len(os.sched_getaffinity(0)), link=link_speed())
    further = (further_port(wanted[0][1], number) for number in range(1, count) if wanted[0][1])
    wanted += [("further engines", port, False) for port in further]
    source = settings.swarm.source_port
    wanted.append(("leaseholders", SOURCE_PORT if source is None else source, source is not None))
    pieces = settings.swarm.piece_port
    if settings.swarm.zone:
        wanted.append(("nodes of other zones", PIECE_PORT if pieces is None else pieces, pieces is not None))
    private = settings.private
    for use, port, usual in (
        ("peers of private swarms", private.port, PRIVATE_PORT),
        ("leaseholders of private swarms", private.source_port, PRIVATE_SOURCE_PORT),
    ):
        if private.repos or port is not None:
            wanted.append((use, usual if port is None else port, port is not None))
    return tuple(
        PortFact(use, str(ListenAddress(host, port)), _taken(host, port), fixed) for use, port, fixed in wanted if port
    )


def _taken(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def _gpu(line: str) -> GpuFact | None:
    name, _, rest = line.rpartition(",")[0].rpartition(",")
    total, free = rest.strip(), line.rpartition(",")[2].strip()
    # Where memory is shared with the CPU, nvidia-smi prints [N/A].
    if not total.isdigit() or not free.isdigit():
        return GpuFact(printable(name.strip()), memory(), memory())
    return GpuFact(printable(name.strip()), int(total) << 20, int(free) << 20)
