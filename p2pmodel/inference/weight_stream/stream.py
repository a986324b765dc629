"""The tensors of a model as they arrive at a daemon, in no fixed order.

Each reader thread waits for one span of tensors; the daemon asks its peers first for the pieces that a reader waits
for. The nodes of a cluster begin at different files, so that they do not all ask for the same pieces first.

Invariants, to re-check when editing:
1. No span of a file is read before its guard is open, and the stream ends only after all guards have confirmed.
2. However the consumer ends, every thread ends soon: `abort` ends what it waits for.
3. At most `connections` spans are in memory, besides the one that the consumer has.
"""

import socket
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import torch

from p2pmodel.core.content.names import printable
from p2pmodel.core.content.shard_header import (
    LENGTH,
    StoredTensor,
    TensorSpan,
    header_length,
    indexed_files,
    spans_of,
    tensor_places,
)
from p2pmodel.errors import EntryNotFound, IntegrityError
from p2pmodel.inference.weight_stream.endpoint import FileGuard, HubEndpoint, RemoteFile, WholeFile

CONNECTIONS = 8
OPENERS = 16
"""Files that are opened at once."""
SPAN = 32 << 20
"""Bytes that are read at once, at least one tensor."""
_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_Arrived = tuple[TensorSpan, torch.Tensor]


@dataclass(slots=True)
class _OpenFile:
    """A file with its header read. `guard` is None where only all of it can be read, by `whole`, span by span."""

    file: RemoteFile
    head: bytes
    """All before the first tensor."""
    guard: FileGuard | None
    spans: deque[TensorSpan]
    whole: WholeFile | None = None
    busy: bool = False
    """Whether a span of a file without a guard is being read: they come one after the other."""


@dataclass(slots=True)
class WeightStream:
    """The weights of the model at `endpoint`. `bytes` and `tensors_read` are the counts so far."""

    endpoint: HubEndpoint
    connections: int = CONNECTIONS
    span: int = SPAN
    node: str = field(default_factory=socket.gethostname)
    """Name that the first file depends on."""
    bytes: int = 0
    tensors_read: int = 0
    _opened: list[FileGuard | WholeFile] = field(default_factory=list)

    def files(self) -> list[str]:
        """The weight files. Raises EntryNotFound if the model has no safetensors."""
        try:
            index = self.endpoint.small(_INDEX)
        except EntryNotFound:
            return [self.endpoint.file(_SINGLE).path]
        return indexed_files(index, _INDEX)

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Name and tensor of each weight, on the CPU, as they arrive. The memory of a tensor is shared by those of its
        span: copy what is kept for long.

        Raises IntegrityError at the end if bytes that were passed on have proved wrong: do not use the model then.
        """
        paths = self._rotated(self.files())
        openers = ThreadPoolExecutor(min(OPENERS, len(paths)), "p2pmodel-headers")
        readers = ThreadPoolExecutor(self.connections, "p2pmodel-weights")
        try:
            yield from self._streamed(paths, openers, readers)
        finally:
            self.endpoint.abort()
            for pool in (openers, readers):
                pool.shutdown(cancel_futures=True)
            for opened in self._opened:
                opened.close()

    def _streamed(
        self, paths: list[str], openers: ThreadPoolExecutor, readers: ThreadPoolExecutor
    ) -> Iterator[tuple[str, torch.Tensor]]:
        opening = {openers.submit(self._open, path) for path in paths}
        reading: dict[Future[_Arrived], _OpenFile] = {}
        opened: list[_OpenFile] = []
        names: dict[str, str] = {}
        while opening or reading:
            waited: set[Future[Any]] = {*opening, *reading}
            wait(waited, return_when=FIRST_COMPLETED)
            for begun in [each for each in opening if each.done()]:
                opening.discard(begun)
                opened.append(begun.result())
                _check_names(names, opened[-1])
            arrived = [each for each in reading if each.done()]
            for each in arrived:
                reading.pop(each).busy = False
            self._submit(opened, reading, readers)
            for each in arrived:
                yield from self._parts(*each.result())
        for file in opened:
            if file.guard is not None:
                file.guard.confirm()

    def _submit(
        self, opened: list[_OpenFile], reading: dict[Future[_Arrived], _OpenFile], readers: ThreadPoolExecutor
    ) -> None:
        """Have the next spans read, of the files that were opened first."""
        for file in opened:
            while file.spans and not file.busy and len(reading) < self.connections:
                file.busy = file.guard is None
                reading[readers.submit(self._read, file, file.spans.popleft())] = file

    def _open(self, path: str) -> _OpenFile:
        """The file at `path`, with its guard open and its header read."""
        file = self.endpoint.file(path)
        if file.size < LENGTH:
            header_length(b"", path, file.size)  # raises: a file without a last byte can have no guard
        guard = self.endpoint.guard(file)
        if guard is not None:
            self._opened.append(guard)
        first = bytearray(LENGTH)
        self.endpoint.read(file, 0, memoryview(first))
        try:
            header = bytearray(header_length(bytes(first), path, file.size))
            self.endpoint.read(file, LENGTH, memoryview(header))
            places = tensor_places(bytes(header), path, file.size)
        except IntegrityError:
            if guard is not None:
                guard.confirm()  # raises if the file has no such header, and these bytes are only on their way
            raise
        return _OpenFile(file, bytes(first + header), guard, deque(spans_of(path, places, self.span)))

    def _read(self, file: _OpenFile, span: TensorSpan) -> _Arrived:
        data = torch.empty(span.end - span.start, dtype=torch.uint8)
        into = memoryview(data.numpy())  # type: ignore[arg-type]  # arrays are buffers; their types say so since 3.12
        if file.guard is not None:
            self.endpoint.read(file.file, span.start, into)
            return span, data
        if file.whole is None:
            file.whole = self.endpoint.whole(file.file)
            self._opened.append(file.whole)
            head = bytearray(len(file.head))
            file.whole.read(0, memoryview(head))
            if head != file.head:
                raise IntegrityError(f"{printable(file.file.path)} arrived damaged", hint="start the engine again")
        file.whole.read(span.start, into)
        return span, data

    def _parts(self, span: TensorSpan, data: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        for place in span.tensors:
            self.bytes += place.end - place.start
            self.tensors_read += 1
            yield place.name, _tensor(place, data[place.start - span.start : place.end - span.start])

    def _rotated(self, paths: list[str]) -> list[str]:
        first = zlib.crc32(self.node.encode()) % len(paths)
        return paths[first:] + paths[:first]


def _tensor(place: StoredTensor, data: torch.Tensor) -> torch.Tensor:
    dtype = _DTYPES[place.dtype]
    if data.storage_offset() % dtype.itemsize:
        data = data.clone()  # torch views only aligned memory
    return data.view(dtype).view(place.shape)


def _check_names(names: dict[str, str], file: _OpenFile) -> None:
    for span in file.spans:
        for place in span.tensors:
            if place.name in names:
                raise IntegrityError(
                    f"the tensor {printable(place.name)} is in {names[place.name]} and {printable(file.file.path)}"
                )
            names[place.name] = printable(file.file.path)
