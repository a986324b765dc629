"""Routes with their types and errors: one table is the source of the application and of its OpenAPI document."""

import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from pydantic import BaseModel, TypeAdapter

from p2pmodel import __version__
from p2pmodel.errors import P2PModelError

_PARAMETER = re.compile(r"\{(\w+)\}")
_SCHEMAS = "#/components/schemas/{model}"
_ERROR = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("code", "message", "hint")},
    "required": ["code", "message", "hint"],
}
_BODY_ERRORS = {"408": "The body arrived too slowly.", "413": "The body is too large.", "415": "The body is not JSON."}


@dataclass(frozen=True, slots=True)
class Route:
    """One operation. `answer`: type of the response; `errors`: errors in addition to those of every route."""

    method: str
    path: str
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    summary: str
    answer: Any = None
    body: type[BaseModel] | None = None
    query: Sequence[str] = ()
    errors: Sequence[type[P2PModelError]] = ()
    events: bool = False
    """Whether the response is a stream of server-sent events, each an `answer`."""

    @property
    def mutates(self) -> bool:
        """Whether the operation changes state."""
        return self.method != "GET"

    @property
    def name(self) -> str:
        """The operation id."""
        return self.handler.__name__


def document(
    routes: Iterable[Route], *, title: str, errors: Sequence[type[P2PModelError]], secured: bool
) -> dict[str, Any]:
    """The OpenAPI document of `routes`. `errors`: errors of every route; `secured`: every route needs the token."""
    table = list(routes)
    adapters: list[tuple[str, Any, TypeAdapter[Any]]] = []
    for route in table:
        adapters.append((f"{route.name} answer", "serialization", TypeAdapter(route.answer)))
        if route.body:
            adapters.append((f"{route.name} body", "validation", TypeAdapter(route.body)))
    schemas, shared = TypeAdapter.json_schemas(adapters, ref_template=_SCHEMAS)
    found = {key: schema for (key, _), schema in schemas.items()}
    paths: dict[str, dict[str, Any]] = {}
    for route in table:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, found, errors)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": __version__},
        "paths": paths,
        "components": {
            "schemas": shared.get("$defs", {}) | {"Error": _ERROR},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}] if secured else [{}],
    }


def _operation(route: Route, schemas: dict[str, Any], errors: Sequence[type[P2PModelError]]) -> dict[str, Any]:
    kind = "text/event-stream" if route.events else "application/json"
    answers: dict[str, Any] = {
        "200": {"description": route.summary, "content": {kind: {"schema": schemas[f"{route.name} answer"]}}}
    }
    error_body = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    for error in (*errors, *route.errors):
        description = (error.__doc__ or error.__name__).partition("\n")[0]
        answers.setdefault(str(error.http_status), {"description": description, "content": error_body})
    for status, description in _BODY_ERRORS.items() if route.mutates else ():
        answers.setdefault(status, {"description": description, "content": error_body})
    operation: dict[str, Any] = {"operationId": route.name, "summary": route.summary, "responses": answers}
    inside = [{"name": n, "in": "path", "required": True} for n in _PARAMETER.findall(route.path)]
    queried = [{"name": name, "in": "query", "required": True} for name in route.query]
    if inside or queried:
        schema = {"type": "string", "minLength": 1}
        operation["parameters"] = [parameter | {"schema": schema} for parameter in inside + queried]
    if route.body:
        content = {"application/json": {"schema": schemas[f"{route.name} body"]}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation
