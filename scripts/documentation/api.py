"""The page of the control API: its operations and schemas, from the OpenAPI document that the daemon serves."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

from aiohttp.test_utils import make_mocked_request

from p2pmodel.service.control.app import control_app
from scripts.documentation.docstrings import meanings_by_class
from scripts.documentation.markdown import code, flat, page, table

_INTRO = """\
`p2pmodel daemon` serves it on a unix socket, and at `--control-listen` over TCP. Everything is JSON; events are
server-sent events, each the JSON of the answer. `GET /api/v1/openapi.json` describes it to programs. Errors are
`{"code", "message", "hint"}` ([errors](errors.md)). Beside it are `/` (dashboard), `/metrics` ([metrics](metrics.md)),
`/healthz` and `/readyz?model=REPO@REV`."""


def text() -> str:
    """The page."""
    document = _document()
    operations = [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    everywhere = set.intersection(*(_errors(operation) for _, _, operation in operations))
    rows = [
        (
            code(f"{method} {_with_query(path, operation)}"),
            operation["summary"],
            _body(operation),
            _answer(operation),
            ", ".join(sorted(_errors(operation) - everywhere)),
        )
        for method, path, operation in operations
    ]
    schemas = document["components"]["schemas"]
    return page(
        "Control API",
        flat(_INTRO),
        "## Operations",
        f"Every operation may answer {', '.join(sorted(everywhere))}; the last column has further errors.",
        table(("operation", "purpose", "body", "answer", "errors"), rows),
        "## Schemas",
        *[block for name in sorted(schemas) for block in _schema(name, schemas[name])],
    )


def _document() -> dict[str, Any]:
    node: Any = _Unused()
    app = control_app(node)
    (route,) = (each for each in app.router.routes() if each.name == "openapi" and each.method == "GET")
    answer = asyncio.run(route.handler(make_mocked_request("GET", "/")))  # type: ignore[arg-type]
    document: dict[str, Any] = json.loads(bytes(answer.body))  # type: ignore[attr-defined]
    return document


class _Unused:
    """A node: describing the API asks nothing of it."""

    def __getattr__(self, name: str) -> Any:
        return None


def _with_query(path: str, operation: dict[str, Any]) -> str:
    names = [each["name"] for each in operation.get("parameters", []) if each["in"] == "query"]
    return path + ("?" + "&".join(f"{name}=" for name in names) if names else "")


def _body(operation: dict[str, Any]) -> str:
    body = operation.get("requestBody")
    return _type(body["content"]["application/json"]["schema"]) if body else ""


def _answer(operation: dict[str, Any]) -> str:
    ((kind, content),) = operation["responses"]["200"]["content"].items()
    return ("events of " if kind == "text/event-stream" else "") + _type(content["schema"])


def _errors(operation: dict[str, Any]) -> set[str]:
    return {status for status in operation["responses"] if status != "200"}


def _schema(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield f"### {name}"
    if description := flat(schema.get("description")):
        yield description
    if "properties" not in schema:
        yield _type(schema)
        return
    meanings = meanings_by_class().get(name, {})
    required = schema.get("required", ())
    yield table(
        ("field", "type", "default", "meaning"),
        [
            (code(field), _type(kind), "" if field in required else _default(kind),
             kind.get("description") or meanings.get(field, ""))
            for field, kind in schema["properties"].items()
        ],
    )  # fmt: skip


def _default(kind: dict[str, Any]) -> str:
    return code(json.dumps(kind["default"])) if "default" in kind else ""


def _type(schema: dict[str, Any]) -> str:
    """A JSON schema in a few words."""
    if reference := schema.get("$ref"):
        name = reference.rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if choices := schema.get("anyOf"):
        return " or ".join(_type(each) for each in choices)
    if values := schema.get("enum", [schema["const"]] if "const" in schema else []):
        return ", ".join(code(json.dumps(value)) for value in values)
    return _container(schema)


def _container(schema: dict[str, Any]) -> str:
    kind, values = schema.get("type", "any"), schema.get("additionalProperties")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return f"object of {_type(values)}" if isinstance(values, dict) else str(kind)
