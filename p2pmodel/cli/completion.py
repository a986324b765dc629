"""Shell completion of repositories and revisions, from the cache. A failure completes nothing."""

from contextlib import suppress

import click
from click.shell_completion import CompletionItem

from p2pmodel.config.sources import load_settings
from p2pmodel.core.content.names import Reference
from p2pmodel.errors import P2PModelError
from p2pmodel.store.cache import HubCache

MOST = 200
"""Entries that a shell is offered."""


def repositories(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The repositories of the cache that begin with `incomplete`; after `REPO@` the names of its snapshots."""
    with suppress(P2PModelError, OSError):
        cache = HubCache(load_settings().cache_dir)
        name, at, _ = incomplete.partition("@")
        found = [str(repo) for repo in cache.repos()] if not at else _revisions(cache, name)
        return [CompletionItem(each) for each in found if each.startswith(incomplete)][:MOST]
    return []


def _revisions(cache: HubCache, name: str) -> list[str]:
    repo = cache.known(Reference.parse(name).repo)
    named = sorted(repo.refs())
    return [f"{name}@{revision}" for revision in (*named, *repo.commits())]
