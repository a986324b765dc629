"""Roll-outs on disk: one file `<id>.json` each, replaced as a whole."""

from dataclasses import dataclass
from pathlib import Path

from p2pmodel.coordinator.rollout.messages import (
    MAX_ROLLOUT,
    object_text,
    parsed_object,
    rollout_id,
    view_of,
    view_plain,
)
from p2pmodel.coordinator.rollout.rollout import RolloutView
from p2pmodel.core.files.private_files import private_folder, remove_leftovers, write_private
from p2pmodel.errors import InvalidInput
from p2pmodel.os_errors import translated

_SUFFIX = ".json"


@dataclass(frozen=True, slots=True)
class StoredRollouts:
    """Content of a folder. `notes` name the files that could not be used; these stay."""

    views: tuple[RolloutView, ...]
    notes: tuple[str, ...]


class RolloutFolder:
    """The folder of one coordinator. Synchronous; one caller at a time. Raises LocalResource and NoSpace."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @translated()
    def load(self) -> StoredRollouts:
        """Read all files; make the folder if there is none."""
        private_folder(self._path)
        remove_leftovers(self._path)
        views, notes = [], []
        for file in sorted(self._path.glob(f"*{_SUFFIX}")):
            try:
                views.append(_view(file))
            except InvalidInput as error:
                notes.append(f"{file.name} in the folder of roll-outs is not used: {error.what}")
        return StoredRollouts(tuple(views), tuple(notes))

    @translated()
    def save(self, view: RolloutView) -> None:
        """Write a roll-out. Durable on return."""
        write_private(self._file(view.id), object_text(view_plain(view)).encode())

    @translated()
    def remove(self, ident: str) -> None:
        """Remove a roll-out."""
        self._file(ident).unlink(missing_ok=True)

    def _file(self, ident: str) -> Path:
        return self._path / (rollout_id(ident) + _SUFFIX)


def _view(file: Path) -> RolloutView:
    view = view_of(parsed_object(file.read_bytes(), MAX_ROLLOUT))
    if view.id != file.stem:
        raise InvalidInput("it has another name than its id")
    return view
