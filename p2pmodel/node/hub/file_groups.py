"""Groups of files that are downloaded together: a client that requests one shard requests the others next."""

import glob
import re

from p2pmodel.core.layout import MIB
from p2pmodel.core.manifest import Manifest, ManifestFile, Selection

LARGE = 16 * MIB
"""Bytes above which a file belongs to a group of its kind. All smaller files (settings, tokenizers) are one group."""


def group_of(manifest: Manifest, file: ManifestFile) -> Selection:
    """The files to download when `file` is requested: all small ones, or those with names that differ only in numbers.

    The groups of a manifest are disjoint and few: requests for all its files, one by one, make few selections.
    """
    large = {_numbered(each.path) for each in manifest.files if each.size > LARGE}
    own = _numbered(file.path)
    if own in large:
        return Selection(include=(own,))
    return Selection(exclude=tuple(sorted(large)))


def _numbered(path: str) -> str:
    """A pattern for `path` in which every digit matches any digit."""
    return re.sub("[0-9]", "[0-9]", glob.escape(path))
