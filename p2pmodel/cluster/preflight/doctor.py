"""The preflight of this node: it finds the snapshot, gathers the facts, and judges them. Moves no byte of a model."""

import asyncio
import dataclasses
import email.utils
import os
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import aiohttp

from p2pmodel import __version__
from p2pmodel.client import Client
from p2pmodel.cluster.preflight import machine
from p2pmodel.cluster.preflight.checks import (
    DaemonFact,
    DoctorCheck,
    NodeFacts,
    PreflightReport,
    SnapshotNeed,
    SourceFact,
    diagnosed,
)
from p2pmodel.config.sections.trust import rule_of
from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.client.coordinators import Coordinator, configured
from p2pmodel.coordinator.client.transport import NETWORK_ERRORS, reason, refusal, session
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import Reference
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.core.plain_json import parse_json
from p2pmodel.errors import InvalidInput, P2PModelError
from p2pmodel.node.host_stats import host_name, link_speed
from p2pmodel.node.measure.bench import chosen
from p2pmodel.node.reporter import Reporter
from p2pmodel.node.snapshot.resolve import find_reference
from p2pmodel.origin.mirrors.measurement import MirrorMeasurement
from p2pmodel.origin.origin import Origin
from p2pmodel.store.cache import HubCache
from p2pmodel.store.files.space import free_bytes

REACH_SECONDS = 5.0
MEASURED_FROM = 1 << 30
"""Bytes of a snapshot from which on the mirrors' rate is measured: the sample of a few MiB is then no burden."""


@dataclasses.dataclass(frozen=True, slots=True)
class DoctorRequest:
    """What to check: a reference to a snapshot, or its `manifest`, or the machine alone. `measure`: read a few MiB from
    each mirror. `version`: the one that this node needs."""

    ref: Reference | None = None
    manifest: Manifest | None = None
    load: bool = False
    measure: bool = False
    version: str = __version__


async def reached(addresses: Sequence[ListenAddress]) -> tuple[DoctorCheck, ...]:
    """Whether this machine connects to each of `addresses`."""

    async def one(address: ListenAddress) -> DoctorCheck:
        try:
            async with asyncio.timeout(REACH_SECONDS):
                _, writer = await asyncio.open_connection(address.host, address.port)
        except TimeoutError:
            found = f"{address}: no answer within {REACH_SECONDS:g} s"
        except OSError as error:
            found = f"{address}: {os.strerror(error.errno).lower() if error.errno else error}"
        else:
            writer.close()
            return DoctorCheck("reach", "ok", str(address))
        return DoctorCheck("reach", "failed", found, "open that port between the machines")

    return tuple(await asyncio.gather(*map(one, addresses)))


class Doctor:
    """The preflight of this machine under `settings`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._cache = HubCache(settings.cache_dir, settings.state_dir)

    async def run(self, request: DoctorRequest) -> PreflightReport:
        """Check this node. A reference that no source knows is a failed check."""
        manifest, unknown = request.manifest, ""
        if manifest is None and request.ref is not None:
            try:
                manifest = await manifest_of(request.ref, self._settings)
            except P2PModelError as error:
                unknown = str(error)
        facts, need = await asyncio.gather(self._facts(manifest, request), self._need(manifest))
        return diagnosed(facts, need, version=request.version, load=request.load, unknown=unknown)

    async def _need(self, manifest: Manifest | None) -> SnapshotNeed | None:
        return None if manifest is None else await asyncio.to_thread(machine.need_of, self._cache, manifest)

    async def _facts(self, manifest: Manifest | None, request: DoctorRequest) -> NodeFacts:
        settings = self._settings
        mirrors, coordinators, daemon = await asyncio.gather(
            self._mirrors(manifest if request.measure else None),
            asyncio.gather(*(_asked(each, settings.swarm.coordinator_timeout) for each in configured(settings))),
            self._daemon(),
        )
        found = await asyncio.to_thread(self._machine_facts, daemon, mirrors, coordinators, load=request.load)
        return dataclasses.replace(found, apart=apart(self._settings, manifest, mirrors) if manifest else "")

    def _machine_facts(
        self, daemon: DaemonFact | None, mirrors: list[SourceFact], coordinators: list[SourceFact], *, load: bool
    ) -> NodeFacts:
        settings = self._settings
        cores, sha_cores = machine.cores()
        return NodeFacts(
            version=__version__,
            node=host_name(),
            cache_dir=str(self._cache.root),
            state_dir=str(settings.state_dir or ""),
            socket=str(settings.daemon.socket or ""),
            free=free_bytes(settings.cache_dir),
            unwritable=machine.unwritable(settings.cache_dir),
            open_files=machine.open_files(),
            cores=cores,
            sha_cores=sha_cores,
            memory=machine.memory(),
            link=link_speed(),
            trusts_coordinator=settings.swarm.trust == "coordinator",
            offline=settings.offline,
            daemon=daemon,
            ports=() if daemon else machine.ports(settings),
            gpus=machine.gpus() if load else None,
            mirrors=tuple(mirrors),
            coordinators=tuple(coordinators),
        )

    async def _mirrors(self, manifest: Manifest | None) -> list[SourceFact]:
        settings = self._settings
        if settings.offline or not settings.mirrors:
            return []
        large = manifest is not None and manifest.total_size >= MEASURED_FROM
        sample = (manifest, chosen(manifest, None)) if manifest is not None and large else None
        unrecorded = settings.origin.model_copy(update={"state_dir": None})
        readings = await MirrorMeasurement(settings.mirrors, unrecorded).measure(sample)
        limits = {mirror.name: mirror.max_bytes_per_second for mirror in settings.mirrors}
        return [
            SourceFact(each.name, each.error, each.connect, each.rate, limit=limits[each.name]) for each in readings
        ]

    async def _daemon(self) -> DaemonFact | None:
        socket = self._settings.daemon.socket
        if socket is None or not socket.is_socket():
            return None
        try:
            async with Client(socket) as client:
                node = await client.node()
        except P2PModelError:
            return None
        return DaemonFact(node.version, node.cache_dir, node.peer_address)


def apart(settings: Settings, manifest: Manifest, mirrors: Sequence[SourceFact]) -> str:
    """Why a node with `settings` takes no part in an assembly of `manifest`; "" if it does."""
    serving = {mirror.name for mirror in settings.mirrors if mirror.serves(manifest.repo)}
    if all(each.error for each in mirrors if each.name in serving):
        return "it reaches no mirror"
    if settings.private.covers(str(manifest.repo)):
        return "its swarm is private"
    rule = rule_of(settings.trust.rules, manifest.repo)
    return "it requires a signature" if rule is not None and rule.signature == "enforce" else ""


async def _asked(coordinator: Coordinator, timeout: float) -> SourceFact:
    """Whether a coordinator answers this node, and its clock."""
    try:
        began = time.time()
        url = f"{coordinator.url}/scrape"
        async with session(timeout) as http, http.get(url, headers=coordinator.headers, allow_redirects=False) as got:
            middle = (began + time.time()) / 2
            error = (await refusal(got)).what if got.status in (401, 403) else ""
            return SourceFact(str(coordinator), error, clock=_ahead(got, middle))
    except NETWORK_ERRORS as error:
        return SourceFact(str(coordinator), reason(error))


def _ahead(response: aiohttp.ClientResponse, now: float) -> float | None:
    """Seconds by which the Date of a response is ahead of `now`, which it states in whole seconds."""
    try:
        skew = email.utils.parsedate_to_datetime(response.headers["Date"]).timestamp() + 0.5 - now
    except (KeyError, ValueError, TypeError):
        return None
    return skew if abs(skew) > 1.0 else 0.0


async def manifest_of(ref: Reference, settings: Settings) -> Manifest:
    """The manifest of `ref`, from the coordinators, the mirrors or the cache. Raises the best of their errors."""
    cache = HubCache(settings.cache_dir, settings.state_dir)
    async with AsyncExitStack() as stack:
        mirrors = Origin(settings.mirrors, settings.origin)
        origin = None if settings.offline else await stack.enter_async_context(mirrors)
        return (await find_reference(ref, settings, cache, origin, Reporter())).manifest


def read_manifest(text: str) -> Manifest:
    """The manifest in `text`, as `Manifest.to_dict` writes it. Raises InvalidInput."""
    try:
        return Manifest.from_dict(parse_json(text))
    except ValueError as error:
        raise InvalidInput(f"the manifest is not JSON: {error}") from None


def plain(found: PreflightReport) -> dict[str, Any]:
    """As one JSON object."""
    checks = [dataclasses.asdict(check) for check in found.checks]
    need = dataclasses.asdict(found.need) if found.need else None
    facts = dataclasses.asdict(found.facts)
    return {"passed": found.passed, "seconds": found.seconds, "snapshot": need, "checks": checks, "node": facts}
