"""The chat page: static files at `/` that call the endpoint of the same origin only."""

from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable

from aiohttp import web

from p2pmodel.http.static_page import add_page

_FOLDER = "page"
_SHARED = "units.js"
_NAMES = (
    "index.html",
    "page.css",
    "icon.svg",
    "main.js",
    "api.js",
    "composer.js",
    "conversations.js",
    "messages.js",
    "pictures.js",
    "startup.js",
    "units.js",
)
PAGE: Mapping[str, str] = {("/" if name == "index.html" else f"/page/{name}"): name for name in _NAMES}
"""The files of the page by path."""


def add_chat_page(app: web.Application) -> None:
    """Add the page to the application of the endpoint. The pictures that it shows are data URLs."""
    add_page(app, {path: page_file(name) for path, name in PAGE.items()}, images="data:")


def page_file(name: str) -> Traversable:
    """A file of the page. Numbers with units are shown by the dashboard's module."""
    if name == _SHARED:
        return files("p2pmodel.service.control") / "dashboard" / name
    return files(__package__) / _FOLDER / name
