"""Repositories in the paths of a hub endpoint's routes: `/api/{kind}/{id}/...` and `/[{kind}/]{id}/resolve/...`."""

from aiohttp import web

from p2pmodel.core.content.names import DATASETS, KINDS, MODELS, SPACES

KIND = "{kind:" + "|".join(KINDS) + "}"
REPO = r"{repo:[^/]+(?:/[^/]+)?}"
FILE_REPO = rf"{{repo:(?:(?:{DATASETS}|{SPACES})/)?[^/]+(?:/[^/]+)?}}"
"""Parts of routes."""


def repo_of(request: web.Request) -> str:
    """The repository that a request names, with its kind. Raises KeyError if its route has none."""
    kind, repo = request.match_info.get("kind", MODELS), request.match_info["repo"]
    return repo if kind == MODELS else f"{kind}/{repo}"
