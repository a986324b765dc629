"""Mirrors with bytes that failed the hash of a piece: suspects until the hash of the whole file shows what was wrong.

The hash of a piece comes with a torrent, and a torrent may be invented. Only the hash of the whole file is the hub's.
"""

from collections import defaultdict

from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.origin.mirrors.mirror import Mirror


class Suspects:
    """Of one origin, by file."""

    def __init__(self) -> None:
        self._by_etag: defaultdict[str, dict[str, Mirror]] = defaultdict(dict)

    def add(self, file: ManifestFile, mirror: Mirror) -> None:
        """The bytes of `mirror` for `file` failed the hash of a piece."""
        self._by_etag[file.etag][mirror.name] = mirror

    def of(self, file: ManifestFile) -> frozenset[str]:
        """Names of the suspects: for this file they are asked after the other mirrors."""
        return frozenset(self._by_etag.get(file.etag, ()))

    def take(self, file: ManifestFile) -> tuple[Mirror, ...]:
        """The suspects; afterwards there are none."""
        return tuple(self._by_etag.pop(file.etag, {}).values())
