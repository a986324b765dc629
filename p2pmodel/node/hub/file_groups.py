"""Which files of a snapshot are wanted together: who asks for one shard will ask for the others."""

import glob
import re

from p2pmodel.core.layout import MIB
from p2pmodel.core.manifest import Manifest, ManifestFile, Selection

LARGE = 16 * MIB
"""Bytes above which a file is brought for its own sake. The smaller ones (settings, tokenizers) are brought at once."""


def group_of(manifest: Manifest, file: ManifestFile) -> Selection:
    """The files to bring when `file` is asked for: all that are small, or those whose names differ in numbers only.

    The groups of a manifest are disjoint, and few: asking for all its files one after another makes few selections.
    """
    large = {_numbered(each.path) for each in manifest.files if each.size > LARGE}
    own = _numbered(file.path)
    if own in large:
        return Selection(include=(own,))
    return Selection(exclude=tuple(sorted(large)))


def _numbered(path: str) -> str:
    """The pattern of `path` with any digits in the place of its digits."""
    return re.sub("[0-9]", "[0-9]", glob.escape(path))
