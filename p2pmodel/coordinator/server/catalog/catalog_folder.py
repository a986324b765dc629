"""The catalog on disk: `<info-hash>.torrent` files and `catalog.json`, each replaced as a whole.

`catalog.json` has the owner of each torrent, and of each revision name the commit and the owner. A torrent without an
owner there is one that members assembled.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2pmodel.coordinator.server.catalog.publication import Publication, read_publication
from p2pmodel.core.content.names import RepoId, check_revision, is_commit
from p2pmodel.core.files.private_files import private_folder, remove_leftovers, write_private
from p2pmodel.core.plain_json import parse_json
from p2pmodel.errors import BadTorrent, InvalidInput
from p2pmodel.os_errors import translated

_RECORD = "catalog.json"
_SUFFIX = ".torrent"


@dataclass(frozen=True, slots=True)
class RevisionName:
    """The commit of a revision name, and the publisher that set it."""

    commit: str
    owner: str


@dataclass(frozen=True, slots=True)
class StoredCatalog:
    """Content of a folder. `owners` by info-hash. `notes` name the files that could not be used; these stay."""

    publications: tuple[Publication, ...]
    owners: Mapping[str, str]
    names: Mapping[RepoId, Mapping[str, RevisionName]]
    notes: tuple[str, ...]


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
            owners, names = self._load_record(notes)
            return StoredCatalog(tuple(publications), owners, names, tuple(notes))

    def save(
        self,
        publication: Publication,
        owners: Mapping[str, str],
        names: Mapping[RepoId, Mapping[str, RevisionName]],
        *,
        replaced: Publication | None = None,
    ) -> None:
        """Write a torrent, then the record: a crash between the two leaves no name without its torrent.

        A torrent that was refused because its record could not be written is not left behind. `replaced`: another
        torrent of the same commit, which is removed.
        """
        path = self._path / (publication.info_hash + _SUFFIX)
        with translated():
            is_new = not path.exists()
            try:
                write_private(path, publication.raw)
                self._save_record(owners, names)
            except OSError:
                if is_new:
                    path.unlink(missing_ok=True)
                raise
            if replaced is not None:
                (self._path / (replaced.info_hash + _SUFFIX)).unlink(missing_ok=True)

    def remove(
        self,
        publication: Publication,
        owners: Mapping[str, str],
        names: Mapping[RepoId, Mapping[str, RevisionName]],
    ) -> None:
        """Write the record, then remove the torrent."""
        with translated():
            self._save_record(owners, names)
            (self._path / (publication.info_hash + _SUFFIX)).unlink(missing_ok=True)

    def _save_record(self, owners: Mapping[str, str], names: Mapping[RepoId, Mapping[str, RevisionName]]) -> None:
        plain = {
            "torrents": {info_hash: owner for info_hash, owner in sorted(owners.items()) if owner},
            "names": {
                str(repo): {name: [held.commit, held.owner] for name, held in sorted(of_repo.items())}
                for repo, of_repo in sorted(names.items())
                if of_repo
            },
        }
        write_private(self._path / _RECORD, json.dumps(plain, indent=1).encode())

    def _load_record(self, notes: list[str]) -> tuple[dict[str, str], dict[RepoId, dict[str, RevisionName]]]:
        try:
            plain = parse_json((self._path / _RECORD).read_bytes())
            return _owners(plain["torrents"]), _names(plain["names"])
        except FileNotFoundError:
            return {}, {}
        except (ValueError, InvalidInput, AttributeError, TypeError, LookupError, RecursionError):
            notes.append(f"{_RECORD} in the catalog folder is not used: it is malformed")
            return {}, {}


def _owners(plain: Any) -> dict[str, str]:
    return {str(info_hash): str(owner) for info_hash, owner in plain.items()}


def _names(plain: Any) -> dict[RepoId, dict[str, RevisionName]]:
    names = {
        RepoId(repo): {check_revision(n): RevisionName(commit, str(owner)) for n, (commit, owner) in of_repo.items()}
        for repo, of_repo in plain.items()
    }
    if not all(is_commit(held.commit) for of_repo in names.values() for held in of_repo.values()):
        raise InvalidInput("a revision points at something that is not a commit")
    return names
