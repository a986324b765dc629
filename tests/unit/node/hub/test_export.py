"""Static files in the layout of a hub: complete, verified, and the lists last."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.core.content.names import RepoId
from p2pmodel.errors import Conflict, IntegrityError, NotFound
from p2pmodel.node.hub.export import ExportResult, SnapshotExport
from p2pmodel.node.reporter import Reporter
from p2pmodel.store.cache import HubCache
from p2pmodel.store.plain_folders import PRIVATE, ExportFolder
from tests.support.hub_snapshot import HubSnapshot, snapshot_of
from tests.support.stored import publish

WEIGHTS = "w/model.safetensors"
FIRST = snapshot_of({"config.json": b"{}", WEIGHTS: b"w" * 300_000, "empty.txt": b""})
SECOND = snapshot_of({"config.json": b'{"a": 1}', WEIGHTS: b"w" * 300_000})


async def exported(root: Path, snapshot: HubSnapshot, target: ExportFolder, revision: str = "main") -> ExportResult:
    cache = HubCache(root / "hub")
    if cache.repo(snapshot.manifest.repo).lacking(snapshot.manifest.files):
        publish(cache, snapshot)
    async with SnapshotExport(cache, target, Reporter()) as exporting:
        return await exporting.run(snapshot.manifest, revision)


def names(root: Path) -> set[str]:
    files = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return {str(path) for path in files if path.parts[0] != PRIVATE}


def link_of(root: Path, snapshot: HubSnapshot, path: str) -> Path:
    return root / f"org/model/resolve/{snapshot.commit}/{path}"


async def test_what_a_client_needs_is_there(tmp_path: Path) -> None:
    root = tmp_path / "www"
    done = await exported(tmp_path, FIRST, ExportFolder(root))
    assert (done.written, done.copied, done.kept) == (300_002, 0, 0)
    content = {f"org/model/resolve/{FIRST.commit}/{path}" for path in FIRST.contents}
    api = "api/models/org/model"
    lists = {f"{api}/{kind}/{name}" for kind in ("tree", "revision") for name in ("main", FIRST.commit)}
    assert names(root) == content | lists | {f"{api}/refs", f"{api}/index.json"}
    assert all(link_of(root, FIRST, path).read_bytes() == data for path, data in FIRST.contents.items())
    assert {(root / name).stat().st_mode & 0o777 for name in names(root)} == {0o644}, "a web server reads them"
    assert json.loads((root / api / "revision/main").read_bytes())["sha"] == FIRST.commit
    refs = json.loads((root / api / "refs").read_bytes())
    assert refs["branches"] == [{"name": "main", "ref": "refs/heads/main", "targetCommit": FIRST.commit}]


async def test_only_what_changed_is_written_again(tmp_path: Path) -> None:
    root = tmp_path / "www"
    await exported(tmp_path, FIRST, ExportFolder(root), "v1")
    await exported(tmp_path, FIRST, ExportFolder(root))
    again = await exported(tmp_path, FIRST, ExportFolder(root))
    assert (again.written, again.copied, again.kept) == (0, 0, 300_002)
    moved = await exported(tmp_path, SECOND, ExportFolder(root))
    assert (moved.written, moved.copied, moved.kept) == (8, 300_000, 0)
    assert link_of(root, SECOND, WEIGHTS).samefile(link_of(root, FIRST, WEIGHTS))
    assert json.loads((root / "api/models/org/model/revision/main").read_bytes())["sha"] == SECOND.commit
    assert (root / f"api/models/org/model/tree/{FIRST.commit}").is_file()
    branches = json.loads((root / "api/models/org/model/refs").read_bytes())["branches"]
    assert {each["name"]: each["targetCommit"] for each in branches} == {"main": SECOND.commit, "v1": FIRST.commit}


class FullFolder(ExportFolder):
    """Fails at one file."""

    def put_file(self, name: str, source: BinaryIO, file: ManifestFile, count: Callable[[int], None]) -> None:
        if name.endswith(WEIGHTS):
            raise OSError("no space")
        super().put_file(name, source, file, count)


async def test_no_list_names_a_commit_with_missing_files(tmp_path: Path) -> None:
    root = tmp_path / "www"
    with pytest.raises(OSError, match="no space"):
        await exported(tmp_path, FIRST, FullFolder(root))
    assert not any(name.startswith("api/") for name in names(root))
    await exported(tmp_path, FIRST, ExportFolder(root))
    assert f"api/models/org/model/tree/{FIRST.commit}" in names(root)


async def test_other_bytes_than_the_hubs_get_no_name(tmp_path: Path) -> None:
    cache, root = HubCache(tmp_path / "hub"), tmp_path / "www"
    publish(cache, FIRST)
    blob = cache.repo(RepoId("org/model")).blob(FIRST.file(WEIGHTS))
    assert blob is not None
    blob.chmod(0o644)
    blob.write_bytes(b"x" * 300_000)
    with pytest.raises(NotFound, match=r"is not in the cache; run 'p2pmodel fetch org"):
        async with SnapshotExport(cache, ExportFolder(root), Reporter()) as exporting:
            await exporting.run(FIRST.manifest, "main")
    with ExportFolder(root).opened(), pytest.raises(IntegrityError, match="has changed in the cache"):
        ExportFolder(root).put_file("w", io.BytesIO(b"x" * 300_000), FIRST.file(WEIGHTS), lambda _: None)
    assert not link_of(root, FIRST, WEIGHTS).exists()
    assert not (root / "w").exists()
    assert not any(name.startswith("api/") for name in names(root))


async def test_one_export_at_a_time_writes_to_a_folder(tmp_path: Path) -> None:
    root = tmp_path / "www"
    with ExportFolder(root).opened(), pytest.raises(Conflict, match="another export"):
        await exported(tmp_path, FIRST, ExportFolder(root))


async def test_the_rests_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    left = tmp_path / "www" / PRIVATE / "unfinished" / "1-abc"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"part")
    await exported(tmp_path, FIRST, ExportFolder(tmp_path / "www"))
    assert not left.exists()
