"""The folder in which a node keeps its transfers: one node at a time uses it."""

from collections.abc import Callable
from pathlib import Path

from p2pmodel.core import notes
from p2pmodel.core.files.private_files import private_folder
from p2pmodel.errors import LocalResource
from p2pmodel.os_errors import translated
from p2pmodel.store.process_locks import LockSearch


def node_folder(state_dir: Path) -> Path:
    """Where the daemon with this `state_dir` keeps its transfers."""
    return state_dir / "node"


@translated()
def take_folder(folder: Path, log: Callable[[str], None]) -> Callable[[], None]:
    """Make `folder`, and lock it; returns what releases it. Blocks. Raises LocalResource while another node uses it."""
    private_folder(folder)
    search = LockSearch(folder / "lock")
    lock = search.wait(say=lambda text: log(notes.info("lock_wait", text)))
    if lock is None:
        what = f"another daemon keeps its transfers in {folder} ({search.holder or 'another process'})"
        raise LocalResource(what, hint="stop it, or set another state_dir")
    return lock.release
