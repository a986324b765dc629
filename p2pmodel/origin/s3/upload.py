"""Uploads to a store: an object gets its name only when all of it is there and has the hub's hash.

A large file goes up in parts. The store compares each part with its MD5, and the bytes are hashed once more against the
hub's hash before the parts become an object. The parts of an interrupted upload are found again by their MD5.
"""

import base64
import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import BoundedSemaphore
from typing import Any, BinaryIO

from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.core.content.names import printable
from p2pmodel.errors import AccessDenied, IntegrityError, NotFound, P2PModelError, Unavailable
from p2pmodel.origin.s3.client import BucketPlace, client_of

PART = 16 << 20
"""Bytes of a part at least; a store takes 10,000 parts of an object."""
MAX_PARTS = 10_000
MAX_COPY = 5 << 30
"""Bytes of the largest object that a store copies in one request."""
_THREADS = 8
_AHEAD = 4
"""Parts of one file in memory at a time."""
_ETAG = "p2pmodel-etag"
"""Metadata of an object: the hub's hash of its content."""
_MISSING = {"404", "NoSuchKey", "NotFound"}
_DENIED = {"403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}
_BINARY, _JSON = "application/octet-stream", "application/json"


@dataclass(frozen=True, slots=True)
class _Part:
    number: int
    etag: str

    @property
    def plain(self) -> dict[str, Any]:
        return {"PartNumber": self.number, "ETag": self.etag}


class ExportBucket:
    """The bucket and prefix at `place`. Blocks: called in threads, several at a time."""

    info = ""
    """The suffix of the name of a repository's information: none, since keys are not folders."""

    def __init__(self, place: BucketPlace) -> None:
        self._place = place
        self._client: Any = None

    def __str__(self) -> str:
        return str(self._place)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Use the bucket while the context lasts. Raises AccessDenied, NotFound and Unavailable."""
        self._client = client_of(self._place)
        with self._answers("the bucket"):
            self._client.head_bucket(Bucket=self._place.bucket)
        with ThreadPoolExecutor(_THREADS, "upload") as self._threads:
            yield

    def check_space(self, size: int) -> None:
        """Nothing: a store does not tell."""

    def read(self, name: str) -> bytes | None:
        """The content of the small object `name`; None if there is none."""
        with self._answers(name):
            try:
                found = self._client.get_object(**self._names(name))
            except self._client.exceptions.NoSuchKey:
                return None
            return bytes(found["Body"].read())

    def holds(self, name: str, file: ManifestFile) -> bool:
        """Whether `name` is there with the content of `file`."""
        with self._answers(name):
            try:
                found = self._client.head_object(**self._names(name))
            except self._client.exceptions.ClientError as error:
                if _code(error) in _MISSING:
                    return False
                raise
            return bool(found["ContentLength"] == file.size and found["Metadata"].get(_ETAG) == file.etag)

    def copy(self, source: str, name: str, file: ManifestFile) -> bool:
        """Have the store copy `source`, which has the content of `file`; False if it is not there, or too large."""
        if file.size > MAX_COPY or not self.holds(source, file):
            return False
        with self._answers(name):
            self._client.copy_object(
                **self._names(name), CopySource={"Bucket": self._place.bucket, "Key": self._place.key(source)}
            )
        return self.holds(name, file)

    def put_file(self, name: str, source: BinaryIO, file: ManifestFile, count: Callable[[int], None]) -> None:
        """Upload the content of `file` from `source`. `count` gets the bytes of each part. Raises IntegrityError."""
        with self._answers(name):
            if file.size <= PART:
                self._put_small(name, source, file, count)
            else:
                _PartedUpload(self._client, self._threads, self._names(name), file, count).run(source)
        if not self.holds(name, file):
            raise Unavailable(f"{self._place}: {printable(name)} is not there after its upload", hint="try again")

    def put(self, name: str, data: bytes) -> None:
        """Replace the small object `name`."""
        with self._answers(name):
            self._client.put_object(**self._names(name), Body=data, ContentMD5=_md5(data), ContentType=_JSON)

    def _put_small(self, name: str, source: BinaryIO, file: ManifestFile, count: Callable[[int], None]) -> None:
        data, digest = source.read(file.size + 1), file.hasher()
        digest.update(data)
        if digest.hexdigest() != file.etag:
            raise changed(file)
        metadata = {_ETAG: file.etag}
        self._client.put_object(
            **self._names(name), Body=data, ContentMD5=_md5(data), ContentType=_BINARY, Metadata=metadata
        )
        count(len(data))

    def _names(self, name: str) -> dict[str, str]:
        return {"Bucket": self._place.bucket, "Key": self._place.key(name)}

    @contextmanager
    def _answers(self, what: str) -> Iterator[None]:
        """Raise the errors of the library as those that explain them."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - an extra

        try:
            yield
        except ClientError as error:
            raise self._error(what, _code(error)) from None
        except BotoCoreError as error:
            raise Unavailable(
                f"{self._place}: {printable(str(error))}", hint="check the address and try again"
            ) from None

    def _error(self, what: str, code: str) -> P2PModelError:
        where = f"{self._place}: {printable(what)}"
        if code in _DENIED:
            return AccessDenied(f"{where}: the store denies access ({code})", hint="set s3_profile, or AWS_PROFILE")
        if code in _MISSING or code == "NoSuchBucket":
            return NotFound(f"{where}: not found ({code})", hint="make the bucket first")
        return Unavailable(f"{where}: the store answers {printable(code)}", hint="run the same command: it resumes")


class _PartedUpload:
    """One large file, in parts."""

    def __init__(
        self,
        client: Any,
        threads: ThreadPoolExecutor,
        names: dict[str, str],
        file: ManifestFile,
        count: Callable[[int], None],
    ) -> None:
        self._client = client
        self._threads = threads
        self._names = names
        self._file = file
        self._count = count
        self._size = max(PART, -(-file.size // MAX_PARTS))
        self._room = BoundedSemaphore(_AHEAD)

    def run(self, source: BinaryIO) -> None:
        """Upload all parts that are not there yet, then make them an object. A failure keeps the parts."""
        upload, there = self._earlier()
        if upload is None:
            made = self._client.create_multipart_upload(
                **self._names, ContentType=_BINARY, Metadata={_ETAG: self._file.etag}
            )
            upload = made["UploadId"]
        digest = self._file.hasher()
        pending: list[Future[_Part]] = []
        number = 0
        try:
            while block := source.read(self._size):
                number += 1
                digest.update(block)
                self._room.acquire()
                pending.append(self._threads.submit(self._send, upload, number, block, there.get(number)))
                if failed := next((part for part in pending if part.done() and part.exception()), None):
                    failed.result()
            parts = [part.result() for part in pending]
        finally:
            for part in pending:
                part.cancel()
        if digest.hexdigest() != self._file.etag:
            self._client.abort_multipart_upload(**self._names, UploadId=upload)
            raise changed(self._file)
        self._client.complete_multipart_upload(
            **self._names, UploadId=upload, MultipartUpload={"Parts": [part.plain for part in parts]}
        )

    def _send(self, upload: str, number: int, block: bytes, known: str | None) -> _Part:
        try:
            etag = f'"{hashlib.md5(block, usedforsecurity=False).hexdigest()}"'
            if known != etag:
                sent = self._client.upload_part(
                    **self._names, UploadId=upload, PartNumber=number, Body=block, ContentMD5=_md5(block)
                )
                etag = sent["ETag"]
            self._count(len(block))
            return _Part(number, etag)
        finally:
            self._room.release()

    def _earlier(self) -> tuple[str | None, dict[int, str]]:
        """The last upload of this object that was not completed, and the ETags of its parts; each is compared before it
        is used."""
        key = self._names["Key"]
        listed = self._client.list_multipart_uploads(Bucket=self._names["Bucket"], Prefix=key).get("Uploads", [])
        upload = next((each["UploadId"] for each in reversed(listed) if each["Key"] == key), None)
        if upload is None:
            return None, {}
        pages = self._client.get_paginator("list_parts").paginate(**self._names, UploadId=upload)
        return upload, {part["PartNumber"]: part["ETag"] for page in pages for part in page.get("Parts", [])}


def changed(file: ManifestFile) -> IntegrityError:
    """The error of a file with another content than its manifest says."""
    return IntegrityError(f"{file.path} has changed in the cache", hint="'p2pmodel verify' repairs it")


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", "")) or "no code"
