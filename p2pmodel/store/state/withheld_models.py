"""Models that only a client's own token opened: their files in the cache are served to clients with a token only."""

import json
from pathlib import Path

from p2pmodel.core.content.names import RepoId
from p2pmodel.os_errors import translated
from p2pmodel.store.files.disk import read_json, write_atomic


class WithheldModels:
    """Their names, in the file `path`, in lower case: the hub takes all spellings for one. Tokens are not recorded."""

    def __init__(self, path: Path) -> None:
        self._path = path
        listed = read_json(path)
        self._names: set[str] = (
            {name.lower() for name in listed if isinstance(name, str)} if isinstance(listed, list) else set()
        )

    def covers(self, repo: RepoId) -> bool:
        """Whether `repo` is withheld."""
        return repo.folded in self._names

    def add(self, repo: RepoId) -> None:
        """Withhold `repo`. Durable on return. Blocks."""
        if not self.covers(repo):
            self._write(self._names | {repo.folded})

    def drop(self, repo: RepoId) -> None:
        """Stop withholding `repo`: the node itself may read it now. Blocks."""
        if self.covers(repo):
            self._write(self._names - {repo.folded})

    @translated()
    def _write(self, names: set[str]) -> None:
        write_atomic(self._path, json.dumps(sorted(names)).encode(), via=self._path.parent)
        self._names = names
