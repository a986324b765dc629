"""The catalog and its aliases over HTTP. Errors are `{"code", "message", "hint"}` with the status of the error tree.

PUT    /catalog?revision=main&revision=v1       publish the .torrent in the body; headers may name the endpoint from
                                                which leaseholders download the snapshot, and the endpoint's token
PUT    /sources/<info-hash>                     name such an endpoint alone, in the same headers
PUT    /reports/<info-hash>                     report that the content of a torrent is wrong
GET    /catalog                                 all torrents, as JSON
GET    /catalog?repo=org/name&revision=main&format=v2|hybrid|v1&except=<info-hash>
GET    /catalog/torrents/<info-hash>.torrent
DELETE /catalog/torrents/<info-hash>.torrent    withdraw it
GET    /aliases                                               all, or those of one repository (repo=org/name)
PUT    /aliases?repo=org/name&name=stable&revision=v1.2       point an alias at the commit of a revision
POST   /aliases/rollback?repo=org/name&name=stable            point it at the commit before its last move
DELETE /aliases?repo=org/name&name=stable                     remove it
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler

from p2pmodel.config.checks import check_url
from p2pmodel.coordinator.catalog_messages import ALIASES, NAME_HEADER, ROLLBACK, Alias, alias_plain
from p2pmodel.coordinator.server.access import CoordinatorAccess
from p2pmodel.coordinator.server.catalog.aliases import Aliases
from p2pmodel.coordinator.server.catalog.catalog import Catalog
from p2pmodel.coordinator.server.catalog.publication import Publication, read_publication
from p2pmodel.coordinator.server.credentials import CALLER, Rights
from p2pmodel.coordinator.server.private_swarms import PrivateSwarms
from p2pmodel.coordinator.server.source_watch import SourceWatch
from p2pmodel.coordinator.tracker.sources import (
    SOURCE_HEADER,
    SOURCE_PEER_HEADER,
    SOURCE_TOKEN_HEADER,
    SOURCE_ZONE_HEADER,
    Source,
)
from p2pmodel.coordinator.tracker.tracked_swarm import Counts
from p2pmodel.core.content.names import DEFAULT_REVISION, Reference, RepoId, VersionRange, printable, reference
from p2pmodel.core.network.addresses import is_ip, is_loopback, is_reachable, neighbourhood
from p2pmodel.errors import InvalidInput, Unavailable
from p2pmodel.swarm.torrents import Format
from p2pmodel.trust.access.policy import Verb

MEDIA_TYPE = "application/x-bittorrent"
_TORRENT = "/catalog/torrents/{info_hash:[0-9a-fA-F]{40,64}}.torrent"
ADVERTISE = "set swarm.advertise (--advertise) at that node"
BODY_TIMEOUT = 60.0
"""Seconds in which a published .torrent must have arrived."""


@dataclass(frozen=True, slots=True)
class CatalogRoutes:
    """Handlers around one catalog.

    `counts` returns the number of peers in the swarm of a 20-byte info-hash. `sources` are the seeders from which
    leaseholders may download. `origin_bytes` returns the bytes that a swarm's peers downloaded from mirrors,
    `cut_off` the names of its nodes that got nothing from their peers, and `unreachable` the addresses at which no peer
    can connect to its clients. `private` decides which client may read the torrent of a private snapshot; `aliases`:
    names that count before those of the catalog; `signed_by`: the keys that signed a torrent. `given` is called with
    the info-hash of each torrent that a client gets, and the client's IP address.
    """

    catalog: Catalog
    counts: Callable[[bytes], Counts]
    sources: SourceWatch
    origin_bytes: Callable[[str], int]
    cut_off: Callable[[str], list[str]]
    private: PrivateSwarms
    unreachable: Callable[[bytes], list[str]]
    access: CoordinatorAccess
    aliases: Aliases
    signed_by: Callable[[Publication], list[str]] = lambda _: []
    given: Callable[[str, str], None] = lambda _info_hash, _client: None

    def table(self) -> list[tuple[str, str, Handler, Rights]]:
        """Method, path, handler and needed rights of each route."""
        return [
            ("GET", "/catalog", self.handle_get, Rights.NONE),
            ("PUT", "/catalog", self.handle_put, Rights.PUBLISHER),
            ("GET", _TORRENT, self.handle_get_torrent, Rights.NONE),
            ("DELETE", _TORRENT, self.handle_delete, Rights.PUBLISHER),
            ("PUT", "/sources/{info_hash:[0-9a-f]{40,64}}", self.handle_put_source, Rights.MEMBER),
            ("PUT", "/reports/{info_hash:[0-9a-f]{40,64}}", self.handle_put_report, Rights.NONE),
        ]

    async def handle_put(self, request: web.Request) -> web.Response:
        """Publish. 201 with the torrent's JSON."""
        try:
            async with asyncio.timeout(BODY_TIMEOUT):
                body = await request.read()
        except TimeoutError:
            raise Unavailable(f"the .torrent did not arrive within {BODY_TIMEOUT:g} s") from None
        sent = await asyncio.to_thread(read_publication, body)
        request[CALLER].check(Verb.PUBLISH, sent.repo)
        await asyncio.to_thread(self.private.check_publication, sent)
        publication = await self.catalog.publish(sent, request.query.getall("revision", []), by=request[CALLER])
        self.access.record(request, "publish", publication.repo, publication.commit, publication.info_hash)
        if source := _source(request):
            _check_source(publication, source)
            await self._name(request, publication, source, trusted=True)
        return web.json_response(self._describe(publication), status=201)

    async def handle_put_source(self, request: web.Request) -> web.Response:
        """Name a source of a torrent in the catalog. 204."""
        publication = self.catalog.by_info_hash(request.match_info["info_hash"])
        request[CALLER].check(Verb.READ, publication.repo)
        source = _source(request)
        if source is None:
            raise InvalidInput(f"the request has no header {SOURCE_HEADER}")
        self.private.check(request, publication)
        _check_source(publication, source)
        await self._name(request, publication, source)
        return web.Response(status=204)

    async def handle_put_report(self, request: web.Request) -> web.Response:
        """Note that the client found wrong content in a torrent. 204."""
        info_hash = request.match_info["info_hash"]
        request[CALLER].check(Verb.READ, self.catalog.by_info_hash(info_hash).repo)
        self.catalog.report(info_hash, request.remote or "")
        return web.Response(status=204)

    async def handle_get(self, request: web.Request) -> web.Response:
        """The torrent of `repo` and `revision`, or the list of all."""
        if "repo" not in request.query:
            listed = [p for p in self.catalog.publications() if request[CALLER].may(Verb.READ, p.repo)]
            return web.json_response({"torrents": [self._describe(publication) for publication in listed]})
        asked = reference(RepoId(request.query["repo"]), request.query.get("revision", DEFAULT_REVISION))
        without = frozenset(request.query.getall("except", []))
        request[CALLER].check(Verb.READ, asked.repo)  # before it is known whether there is one
        ref = self.aliases.version(asked) if isinstance(asked, VersionRange) else asked
        meant = self.aliases.resolved(ref)
        found = self.catalog.find(meant, _format(request.query.get("format", "v2")), without=without)
        return self._torrent(request, found, name=ref.revision if meant != asked else "")

    async def handle_get_torrent(self, request: web.Request) -> web.Response:
        """A torrent by info-hash."""
        return self._torrent(request, self.catalog.by_info_hash(request.match_info["info_hash"].lower()))

    async def handle_delete(self, request: web.Request) -> web.Response:
        """Withdraw a torrent. 204."""
        info_hash = request.match_info["info_hash"].lower()
        request[CALLER].check(Verb.PUBLISH, self.catalog.by_info_hash(info_hash).repo)
        await self.catalog.withdraw(info_hash, by=request[CALLER])
        return web.Response(status=204)

    def _torrent(self, request: web.Request, publication: Publication, *, name: str = "") -> web.Response:
        request[CALLER].check(Verb.READ, publication.repo)
        self.private.check(request, publication)
        self.access.record(request, "torrent", publication.repo, publication.commit, publication.info_hash)
        self.given(publication.info_hash, request.remote or "")
        response = _torrent(publication)
        if name:
            response.headers[NAME_HEADER] = name
        return response

    async def _name(
        self, request: web.Request, publication: Publication, source: Source, *, trusted: bool = False
    ) -> None:
        client = request.remote or ""
        await self.sources.add(publication.info_hash, source, client, by=neighbourhood(client), trusted=trusted)

    def _describe(self, publication: Publication) -> dict[str, Any]:
        # A hybrid is announced under two hashes, mostly by the same clients: the larger swarm is the better count.
        swarms = [self.counts(announced) for announced in publication.announced]
        return {
            "repo": str(publication.repo),
            "commit": publication.commit,
            "revisions": self.catalog.revisions(publication),
            "aliases": self.aliases.of(publication),
            "format": publication.format,
            "info_hash": publication.info_hash,
            "size": publication.size,
            "files": publication.files,
            "private": publication.private,
            "seeders": max(c.seeders for c in swarms),
            "leechers": max(c.leechers for c in swarms),
            "origin_bytes": self.origin_bytes(publication.info_hash),
            "cut_off": self.cut_off(publication.info_hash),
            "unreachable": [each for announced in publication.announced for each in self.unreachable(announced)],
            "signed_by": self.signed_by(publication),
        }


def _source(request: web.Request) -> Source | None:
    """The seeder that publishes, if leaseholders may download from it."""
    endpoint = request.headers.get(SOURCE_HEADER)
    if endpoint is None:
        return None
    try:
        checked = check_url(endpoint)
    except ValueError as error:
        raise InvalidInput(f"{SOURCE_HEADER}: {error}") from None
    host = urlsplit(checked).hostname or ""
    if is_ip(host) and not is_reachable(host) and not (is_loopback(host) and is_loopback(request.remote or "")):
        raise InvalidInput(f"no other machine reaches a source at {printable(endpoint)}", hint=ADVERTISE)
    values = (request.headers.get(name, "") for name in (SOURCE_TOKEN_HEADER, SOURCE_PEER_HEADER, SOURCE_ZONE_HEADER))
    return Source(checked, *values)


def _check_source(publication: Publication, source: Source) -> None:
    """Raise InvalidInput for a source of a private snapshot that is not one over TLS, with certificates alone."""
    if publication.authority is not None and (source.token or urlsplit(source.endpoint).scheme != "https"):
        raise InvalidInput(
            "a private snapshot has sources over https alone, without a token",
            hint="name the node's source of private snapshots",
        )


def _torrent(publication: Publication) -> web.Response:
    return web.Response(
        body=publication.raw,
        content_type=MEDIA_TYPE,
        headers={
            "X-Repo-Commit": publication.commit,
            "Content-Disposition": f'attachment; filename="{publication.commit}.{publication.format}.torrent"',
        },
    )


def _format(text: str) -> Format:
    for known in get_args(Format):
        if text == known:
            return known  # type: ignore[no-any-return]
    raise InvalidInput("format must be v2, hybrid or v1")


@dataclass(frozen=True, slots=True)
class AliasRoutes:
    """Handlers around the aliases of one coordinator. A caller moves those of repositories that it may publish."""

    aliases: Aliases
    access: CoordinatorAccess

    def table(self) -> list[tuple[str, str, Handler, Rights]]:
        """Method, path, handler and needed rights of each route."""
        return [
            ("GET", ALIASES, self.handle_list, Rights.NONE),
            ("PUT", ALIASES, self.handle_put, Rights.PUBLISHER),
            ("POST", ROLLBACK, self.handle_rollback, Rights.PUBLISHER),
            ("DELETE", ALIASES, self.handle_delete, Rights.PUBLISHER),
        ]

    async def handle_list(self, request: web.Request) -> web.Response:
        """The aliases of the repositories that the caller may read."""
        repo = RepoId(request.query["repo"]) if "repo" in request.query else None
        listed = [
            alias_plain(alias)
            for alias in self.aliases.all()
            if request[CALLER].may(Verb.READ, alias.repo) and (repo is None or alias.repo.is_spelling_of(repo))
        ]
        return web.json_response({"aliases": listed})

    async def handle_put(self, request: web.Request) -> web.Response:
        """Point an alias at the commit of a revision. 200 with its JSON."""
        ref = _named(request)
        return self._moved(request, await self.aliases.set(ref, _value(request, "revision"), request[CALLER]))

    async def handle_rollback(self, request: web.Request) -> web.Response:
        """Point an alias at the commit before its last move. 200 with its JSON."""
        return self._moved(request, await self.aliases.rollback(_named(request), request[CALLER]))

    async def handle_delete(self, request: web.Request) -> web.Response:
        """Remove an alias. 200 with its last JSON."""
        return self._moved(request, await self.aliases.remove(_named(request), request[CALLER]))

    def _moved(self, request: web.Request, alias: Alias) -> web.Response:
        self.access.record(request, "alias", alias.repo, alias.commit, alias=alias.name)
        return web.json_response(alias_plain(alias))


def _named(request: web.Request) -> Reference:
    """The alias that a request changes. Raises unless its caller may publish in that repository."""
    ref = Reference(RepoId(_value(request, "repo")), _value(request, "name"))
    request[CALLER].check(Verb.PUBLISH, ref.repo)
    return ref


def _value(request: web.Request, key: str) -> str:
    value = request.query.get(key)
    if not value:
        raise InvalidInput(f"the request has no parameter '{key}'")
    return value
