"""The dashboard: static files at `/` that call the control API of the same origin only."""

from collections.abc import Mapping
from importlib.resources import files

from aiohttp import web

from p2pmodel.http.static_page import add_page

_FOLDER = "dashboard"
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


def add_dashboard(app: web.Application) -> None:
    """Add the dashboard to the application of a node."""
    folder = files(__package__) / _FOLDER
    add_page(app, {path: folder / name for path, name in PAGE.items()})
