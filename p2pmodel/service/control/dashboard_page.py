"""The dashboard: static files at `/` that call the control API of the same origin only.

The files contain no data of the node, so they need no token; the page prompts for one if the API requires it.
"""

from collections.abc import Mapping
from importlib.resources import files

from aiohttp import web
from aiohttp.typedefs import Handler

_FOLDER = "dashboard"
_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_NAMES = (
    "index.html",
    "page.css",
    "icon.svg",
    "main.js",
    "api.js",
    "units.js",
    "limits.js",
    "peers.js",
    "transfers.js",
    "pieces.js",
    "tables.js",
)
PAGE: Mapping[str, str] = {("/" if name == "index.html" else f"/dashboard/{name}"): name for name in _NAMES}
"""The files of the dashboard by path."""

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def add_dashboard(app: web.Application) -> None:
    """Add the dashboard to the application of a node."""
    folder = files(__package__) / _FOLDER
    for path, name in PAGE.items():
        app.router.add_get(path, _serve((folder / name).read_bytes(), _KINDS[name.rpartition(".")[2]]))


def _serve(body: bytes, kind: str) -> Handler:
    async def serve(_request: web.Request) -> web.Response:
        return web.Response(body=body, content_type=kind, charset="utf-8", headers=_HEADERS)

    return serve
