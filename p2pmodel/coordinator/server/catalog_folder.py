"""The catalog on disk: `<info-hash>.torrent` files and `refs.json`, each replaced as a whole.

An empty `<info-hash>.assembled` marks a torrent that was assembled here and that no seeder has published.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2pmodel.coordinator.server.publication import Publication, read_publication
from p2pmodel.core.names import RepoId, check_revision, is_commit
from p2pmodel.core.plain_json import parse_json
from p2pmodel.core.private_files import FILE_MODE, private_folder, remove_leftovers, write_private
from p2pmodel.errors import BadTorrent, InvalidInput
from p2pmodel.os_errors import translated

_REFS = "refs.json"
_SUFFIX = ".torrent"
_ASSEMBLED = ".assembled"


@dataclass(frozen=True, slots=True)
class StoredCatalog:
    """Content of a folder. `notes` name the files that could not be used; they are left as they are."""

    publications: tuple[Publication, ...]
    refs: Mapping[RepoId, Mapping[str, str]]
    notes: tuple[str, ...]
    assembled: frozenset[str] = frozenset()


class CatalogFolder:
    """One catalog's folder. Synchronous; one caller at a time. Raises LocalResource and NoSpace."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> StoredCatalog:
        """Read all files; make the folder if there is none."""
        notes: list[str] = []
        publications = []
        with translated():
            private_folder(self._path)
            remove_leftovers(self._path)
            for file in sorted(self._path.glob(f"*{_SUFFIX}")):
                try:
                    publications.append(read_publication(file.read_bytes()))
                except BadTorrent as error:
                    notes.append(f"{file.name} in the catalog folder is not used: {error.what}")
            assembled = frozenset(file.stem for file in self._path.glob(f"*{_ASSEMBLED}"))
            return StoredCatalog(tuple(publications), self._load_refs(notes), tuple(notes), assembled)

    def save(
        self, publication: Publication, refs: Mapping[RepoId, Mapping[str, str]], *, assembled: bool = False
    ) -> None:
        """Write a torrent, then the names: a crash between the two leaves no name without its torrent."""
        with translated():
            if assembled:
                self._mark(publication).touch(FILE_MODE)
            else:
                self._mark(publication).unlink(missing_ok=True)
            self._replace(publication.info_hash + _SUFFIX, publication.raw)
            self._save_refs(refs)

    def remove(self, publication: Publication, refs: Mapping[RepoId, Mapping[str, str]]) -> None:
        """Write the names, then remove the torrent."""
        with translated():
            self._save_refs(refs)
            (self._path / (publication.info_hash + _SUFFIX)).unlink(missing_ok=True)
            self._mark(publication).unlink(missing_ok=True)

    def _mark(self, publication: Publication) -> Path:
        return self._path / (publication.info_hash + _ASSEMBLED)

    def _save_refs(self, refs: Mapping[RepoId, Mapping[str, str]]) -> None:
        plain = {str(repo): dict(sorted(names.items())) for repo, names in sorted(refs.items()) if names}
        self._replace(_REFS, json.dumps(plain, indent=1).encode())

    def _load_refs(self, notes: list[str]) -> dict[RepoId, dict[str, str]]:
        try:
            return _refs(parse_json((self._path / _REFS).read_bytes()))
        except FileNotFoundError:
            return {}
        except (ValueError, InvalidInput, AttributeError, TypeError):
            notes.append(f"{_REFS} in the catalog folder is not used: it is malformed")
            return {}

    def _replace(self, name: str, data: bytes) -> None:
        write_private(self._path / name, data)


def _refs(plain: Any) -> dict[RepoId, dict[str, str]]:
    refs = {RepoId(repo): {check_revision(n): c for n, c in names.items()} for repo, names in plain.items()}
    if not all(is_commit(commit) for names in refs.values() for commit in names.values()):
        raise InvalidInput("a revision points at something that is not a commit")
    return refs
