"""Routes with what a client must know of them: the application and its OpenAPI document are made of the same table."""

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
_REFUSAL = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("code", "message", "hint")},
    "required": ["code", "message", "hint"],
}
_OF_BODIES = {"408": "The body takes too long.", "413": "It is too large.", "415": "It is not JSON."}


@dataclass(frozen=True, slots=True)
class Route:
    """One operation. `answer` is the type of its answer; `errors` what it raises besides what every route does."""

    method: str
    path: str
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    summary: str
    answer: Any = None
    body: type[BaseModel] | None = None
    query: Sequence[str] = ()
    errors: Sequence[type[P2PModelError]] = ()
    events: bool = False
    """Whether it answers with server-sent events, each an `answer`."""

    @property
    def mutates(self) -> bool:
        """Whether it changes anything."""
        return self.method != "GET"

    @property
    def name(self) -> str:
        """Its operation id."""
        return self.handler.__name__


def document(
    routes: Iterable[Route], *, title: str, errors: Sequence[type[P2PModelError]], secured: bool
) -> dict[str, Any]:
    """The OpenAPI document of `routes`, each of which may answer `errors` too; `secured`: all need the token."""
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
            "schemas": shared.get("$defs", {}) | {"Refusal": _REFUSAL},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}] if secured else [{}],
    }


def _operation(route: Route, schemas: dict[str, Any], errors: Sequence[type[P2PModelError]]) -> dict[str, Any]:
    kind = "text/event-stream" if route.events else "application/json"
    answers: dict[str, Any] = {
        "200": {"description": route.summary, "content": {kind: {"schema": schemas[f"{route.name} answer"]}}}
    }
    refusal = {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}}
    for error in (*errors, *route.errors):
        said = (error.__doc__ or error.__name__).partition("\n")[0]
        answers.setdefault(str(error.http_status), {"description": said, "content": refusal})
    for status, said in _OF_BODIES.items() if route.mutates else ():
        answers.setdefault(status, {"description": said, "content": refusal})
    operation: dict[str, Any] = {"operationId": route.name, "summary": route.summary, "responses": answers}
    inside = [{"name": n, "in": "path", "required": True} for n in _PARAMETER.findall(route.path)]
    asked = [{"name": name, "in": "query", "required": True} for name in route.query]
    if inside or asked:
        schema = {"type": "string", "minLength": 1}
        operation["parameters"] = [parameter | {"schema": schema} for parameter in inside + asked]
    if route.body:
        content = {"application/json": {"schema": schemas[f"{route.name} body"]}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation
