"""Uploads to a real server with the API of S3, and downloads from it as from any mirror."""

import hashlib
import io
import os
import random
from collections.abc import Iterator

import pytest

from p2pmodel.config.sections.mirrors import MirrorSettings
from p2pmodel.core.content.manifest import ManifestFile, lfs_pointer_oid
from p2pmodel.core.content.names import Reference
from p2pmodel.errors import AccessDenied, IntegrityError, NotFound
from p2pmodel.node.hub.export import content_name
from p2pmodel.origin.s3 import upload
from p2pmodel.origin.s3.client import BucketPlace
from p2pmodel.origin.s3.upload import ExportBucket
from tests.support.fake_hub import FakeHub
from tests.support.hub_snapshot import snapshot_of
from tests.support.memory_sink import MemorySink
from tests.support.s3_server import BUCKET, ENVIRONMENT, StoreServer, s3_server

PART = 5 << 20
"""Bytes of the smallest part that stores take."""


@pytest.fixture(scope="module")
def store() -> Iterator[StoreServer]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        with s3_server() as server:
            yield server


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "PART", PART)


def lfs_file(data: bytes, path: str = "w.safetensors") -> ManifestFile:
    digest = hashlib.sha256(data).hexdigest()
    return ManifestFile(path, len(data), lfs_pointer_oid(digest, len(data)), digest)


def ignore(_: int) -> None:
    pass


class BrokenFile(io.BytesIO):
    """Fails once `good` bytes were read."""

    good = 2 * PART

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() >= self.good:
            raise OSError("the disk broke")
        return super().read(size)


def test_a_large_file_appears_when_all_of_it_is_there_and_resumes(store: StoreServer) -> None:
    data = random.Random(1).randbytes(3 * PART + 17)
    file, sent = lfs_file(data), []
    bucket = ExportBucket(store.place("parts"))
    with bucket.opened():
        with pytest.raises(OSError, match="broke"):
            bucket.put_file("a/w", BrokenFile(data), file, ignore)
        assert not bucket.holds("a/w", file)
        assert store.keys("parts/") == []
        earlier = store.client().list_multipart_uploads(Bucket=BUCKET)["Uploads"]
        before = store.client().list_parts(Bucket=BUCKET, Key="parts/a/w", UploadId=earlier[0]["UploadId"])["Parts"]
        bucket.put_file("a/w", io.BytesIO(data), file, sent.append)
        assert bucket.holds("a/w", file)
        assert sum(sent) == len(data)
        assert bucket.read("a/w") == data
    assert len(earlier) == 1
    assert [part["PartNumber"] for part in before] == [1, 2]
    assert "Uploads" not in store.client().list_multipart_uploads(Bucket=BUCKET), "the parts were used"


@pytest.mark.parametrize("size", [100, 2 * PART])
def test_other_bytes_than_the_hash_get_no_name(store: StoreServer, size: int) -> None:
    bucket = ExportBucket(store.place("wrong"))
    with bucket.opened(), pytest.raises(IntegrityError, match="has changed in the cache"):
        bucket.put_file("w", io.BytesIO(b"x" * size), lfs_file(b"y" * size), ignore)
    assert store.keys("wrong/") == []
    assert "Uploads" not in store.client().list_multipart_uploads(Bucket=BUCKET, Prefix="wrong/")


def test_the_store_copies_what_it_has(store: StoreServer) -> None:
    bucket, file = ExportBucket(store.place("copies")), lfs_file(b"same")
    with bucket.opened():
        bucket.put_file("old/w", io.BytesIO(b"same"), file, ignore)
        assert bucket.copy("old/w", "new/w", file)
        assert bucket.holds("new/w", file)
        assert not bucket.copy("nothing", "other/w", file)
        assert not bucket.holds("old/w", lfs_file(b"else"))


def test_a_bucket_that_is_not_there_is_named(store: StoreServer) -> None:
    missing = ExportBucket(BucketPlace("no-such-bucket", "hf", store.url, path_style=True))
    with pytest.raises(NotFound, match=r"s3://no-such-bucket/hf: the bucket: not found"), missing.opened():
        pass


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "403"])
def test_wrong_credentials_are_said_to_be_wrong(store: StoreServer, code: str) -> None:
    error = ExportBucket(store.place())._error("the bucket", code)
    assert isinstance(error, AccessDenied)
    assert "set s3_profile, or AWS_PROFILE" in str(error)


async def test_a_bucket_is_a_mirror_with_failover(store: StoreServer, open_origin) -> None:
    snapshot = snapshot_of({"config.json": b"{}", "w/a b+c.safetensors": random.Random(2).randbytes(900_000)})
    bucket = ExportBucket(store.place("mirror"))
    path = "w/a b+c.safetensors"
    with bucket.opened():
        name = content_name(snapshot.manifest.repo, snapshot.commit, path)
        bucket.put_file(name, io.BytesIO(bytes(snapshot.contents[path])), snapshot.file(path), ignore)
    settings = MirrorSettings(name="bucket", endpoint=f"s3://{BUCKET}/mirror", s3_endpoint=store.url, priority=-1)
    async with FakeHub(snapshot) as hub, open_origin(settings, hub) as origin:
        manifest = await origin.manifest(Reference(snapshot.manifest.repo))
        for wanted in snapshot.contents:
            sink = MemorySink(snapshot.file(wanted))
            await origin.pull(manifest, snapshot.file(wanted), sink)
            assert sink.data == snapshot.contents[wanted]
        assert await origin.read(manifest, snapshot.file(path), 7, 100, accept=lambda _: True)
        assert origin.counters()["bucket"].received >= 900_000
        assert not hub.asked(path)
        assert hub.asked("config.json"), "which the bucket lacks"
        told = repr((origin.statuses(), settings))
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in told
