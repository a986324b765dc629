"""The aliases over HTTP. Errors are `{"code", "message", "hint"}` with the status of the error tree.

GET    /aliases                                               all, or those of one repository (repo=org/name)
PUT    /aliases?repo=org/name&name=stable&revision=v1.2       point an alias at the commit of a revision
POST   /aliases/rollback?repo=org/name&name=stable            point it at the commit before its last move
DELETE /aliases?repo=org/name&name=stable                     remove it
"""

from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler

from p2pmodel.coordinator.alias_messages import ALIASES, ROLLBACK, Alias, alias_plain
from p2pmodel.coordinator.server.access import CoordinatorAccess
from p2pmodel.coordinator.server.catalog.aliases import Aliases
from p2pmodel.coordinator.server.credentials import CALLER, Rights
from p2pmodel.core.content.names import Reference, RepoId
from p2pmodel.errors import InvalidInput
from p2pmodel.trust.access.policy import Verb


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
