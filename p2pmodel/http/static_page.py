"""Pages of this program: static files with a policy that lets them call their own origin only, and run no other code.

The files contain no data of the server, so they need no token; a page prompts for one if the API requires it.
"""

from collections.abc import Mapping
from importlib.resources.abc import Traversable

from aiohttp import web
from aiohttp.typedefs import Handler

_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


def add_page(app: web.Application, files: Mapping[str, Traversable], *, images: str = "") -> None:
    """Serve `files` by path. `images`: schemes of images that the page may show beside those of its own origin."""
    headers = _headers(images)
    for path, file in files.items():
        app.router.add_get(path, _serve(file.read_bytes(), _KINDS[file.name.rpartition(".")[2]], headers))


def _headers(images: str) -> dict[str, str]:
    sources = " ".join(filter(None, ("'self'", images)))
    return {
        "Content-Security-Policy": f"default-src 'none'; script-src 'self'; style-src 'self'; img-src {sources}; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-cache",
    }


def _serve(body: bytes, kind: str, headers: Mapping[str, str]) -> Handler:
    async def serve(_request: web.Request) -> web.Response:
        return web.Response(body=body, content_type=kind, charset="utf-8", headers=headers)

    return serve
