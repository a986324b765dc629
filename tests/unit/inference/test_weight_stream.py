"""Tensors that stream from an endpoint while its files grow: all arrive right, in any order, or none is trusted."""

import json
import random
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from p2pmodel.core.content.shard_header import BYTES, header_length, spans_of, tensor_places
from p2pmodel.errors import EntryNotFound, IntegrityError, Unavailable
from p2pmodel.inference.weight_stream.endpoint import HubEndpoint
from p2pmodel.inference.weight_stream.stream import _DTYPES, WeightStream
from tests.support.growing_endpoint import COMMIT, REPO, GrowingEndpoint
from tests.support.processes import PATIENCE, eventually
from tests.support.tiny_models import WRONG_INDEXES

INDEX = "model.safetensors.index.json"


@pytest.fixture
def endpoint(dense: Path) -> Iterator[GrowingEndpoint]:
    """The tiny dense model, of which the index has arrived."""
    files = {path.name: path.read_bytes() for path in dense.glob("model*")}
    with GrowingEndpoint(files).serving() as served:
        served.verify(INDEX)
        yield served


def stream_of(endpoint: GrowingEndpoint, *, patience: float = PATIENCE, node: str = "node") -> WeightStream:
    client = HubEndpoint(endpoint.url, REPO, patience=patience)
    return WeightStream(client, connections=3, span=20_000, node=node)


def stored(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in folder.glob("model*.safetensors") for name, tensor in load_file(path).items()}


def assert_equal(got: dict[str, torch.Tensor], folder: Path) -> None:
    expected = stored(folder)
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        assert got[name].dtype == tensor.dtype, name
        assert torch.equal(got[name], tensor), name


@pytest.mark.parametrize("seed", range(3))
def test_every_tensor_is_right_in_any_order_of_arrival(endpoint: GrowingEndpoint, dense: Path, seed: int) -> None:
    endpoint.later, endpoint.cuts = 3, 2
    shards = [path for path in endpoint.files if path != INDEX]
    blocks = [(path, block) for path in shards for block in range(endpoint.blocks(path))]
    random.Random(seed).shuffle(blocks)

    def arrive() -> None:
        for path, block in blocks:
            endpoint.arrive(path, block)
        endpoint.complete()

    writer = threading.Thread(target=arrive)
    writer.start()
    stream = stream_of(endpoint)
    got = {name: tensor.clone() for name, tensor in stream.tensors()}
    writer.join()
    assert_equal(got, dense)
    assert stream.bytes == sum(tensor.nbytes for tensor in got.values())
    assert stream.tensors_read == len(got)


def test_tensors_come_before_the_last_one_has_arrived(endpoint: GrowingEndpoint) -> None:
    for path in sorted(endpoint.files)[:-2]:
        endpoint.verify(path)
    tensors = stream_of(endpoint).tensors()
    name, _ = next(tensors)
    assert name
    tensors.close()  # type: ignore[attr-defined]


def test_the_stream_ends_only_when_every_file_is_verified(endpoint: GrowingEndpoint, dense: Path) -> None:
    last = "model-00005-of-00005.safetensors"
    for path in endpoint.files:
        if path != last:
            endpoint.verify(path)
    for block in range(endpoint.blocks(last)):
        endpoint.arrive(last, block)
    got: dict[str, torch.Tensor] = {}
    ended = threading.Event()

    def consume() -> None:
        got.update((name, tensor.clone()) for name, tensor in stream_of(endpoint).tensors())
        ended.set()

    consumer = threading.Thread(target=consume)
    consumer.start()
    eventually_requested(endpoint, last)
    assert not ended.wait(0.2)
    endpoint.verify(last)
    consumer.join(PATIENCE)
    assert ended.is_set()
    assert_equal(got, dense)


def eventually_requested(endpoint: GrowingEndpoint, path: str) -> None:
    wanted = f"bytes={len(endpoint.files[path]) - 1}-"
    eventually(
        lambda: any(asked[1].endswith(path) and asked[2] == wanted for asked in list(endpoint.requests)),
        PATIENCE,
        lambda: f"the end of {path} was not requested",
    )


def test_the_guard_of_a_file_comes_before_its_other_bytes(endpoint: GrowingEndpoint) -> None:
    endpoint.complete()
    list(stream_of(endpoint).tensors())
    for path in endpoint.files:
        if path != INDEX:
            ranges = [asked[2] for asked in endpoint.requests if asked[0] == "GET" and asked[1].endswith(path)]
            assert ranges[0] == f"bytes={len(endpoint.files[path]) - 1}-"


def test_bytes_that_prove_wrong_end_the_stream(endpoint: GrowingEndpoint) -> None:
    wrong = "model-00003-of-00005.safetensors"
    for path in endpoint.files:
        if path != wrong:
            endpoint.verify(path)
    for block in range(endpoint.blocks(wrong)):
        endpoint.arrive(wrong, block)
    stream = stream_of(endpoint)

    def consume() -> None:
        for name, _ in stream.tensors():
            if name:
                eventually_requested(endpoint, wrong)
                endpoint.spoil(wrong)
                endpoint.verify(wrong)  # responses that begin later get the right bytes

    with pytest.raises(IntegrityError, match=r"arrived damaged.*start the engine again"):
        consume()


def test_a_file_that_is_sent_only_as_a_whole(endpoint: GrowingEndpoint, dense: Path) -> None:
    endpoint.complete()
    endpoint.whole = {"model-00002-of-00005.safetensors"}
    assert_equal({name: tensor.clone() for name, tensor in stream_of(endpoint).tensors()}, dense)


def test_all_requests_after_the_first_are_about_one_commit(endpoint: GrowingEndpoint) -> None:
    endpoint.complete()
    list(stream_of(endpoint).tensors())
    assert f"/{REPO}/resolve/main/" in endpoint.requests[0][1]
    assert {path.split("/resolve/")[1].split("/")[0] for _, path, _ in endpoint.requests[1:]} == {COMMIT}


def test_nodes_begin_at_different_files(endpoint: GrowingEndpoint) -> None:
    endpoint.complete()
    orders = {tuple(stream_of(endpoint, node=f"node{n}")._rotated(list("abcde"))) for n in range(100)}
    assert len(orders) == 5
    assert {"".join(sorted(order)) for order in orders} == {"abcde"}


def test_a_consumer_that_leaves_ends_every_thread(endpoint: GrowingEndpoint) -> None:
    endpoint.verify("model-00001-of-00005.safetensors")
    tensors = stream_of(endpoint).tensors()
    next(tensors)
    tensors.close()  # type: ignore[attr-defined]
    eventually(lambda: not [t.name for t in threading.enumerate() if t.name.startswith("p2pmodel-")], PATIENCE)


def test_silence_has_a_bound(endpoint: GrowingEndpoint) -> None:
    with pytest.raises(Unavailable, match=r"no byte of model-0.* within 0 s|is not complete"):
        list(stream_of(endpoint, patience=0.2).tensors())


def test_a_model_without_safetensors(endpoint: GrowingEndpoint) -> None:
    endpoint.files.clear()
    with pytest.raises(EntryNotFound, match=r"no file model\.safetensors"):
        stream_of(endpoint).files()


@pytest.mark.parametrize(("index", "says"), [*WRONG_INDEXES.items()])
def test_an_index_that_is_none(endpoint: GrowingEndpoint, index: bytes, says: str) -> None:
    endpoint.files[INDEX] = index
    endpoint.verify(INDEX)
    with pytest.raises(IntegrityError, match=says):
        stream_of(endpoint).files()


@pytest.mark.parametrize("size", [0, 5])
def test_a_file_too_short_for_a_header(endpoint: GrowingEndpoint, size: int) -> None:
    endpoint.files["model-00002-of-00005.safetensors"] = bytes(size)
    endpoint.complete()
    with pytest.raises(IntegrityError, match=r"model-00002.*no valid length"):
        list(stream_of(endpoint).tensors())


def test_a_tensor_in_two_files(endpoint: GrowingEndpoint) -> None:
    first, second = "model-00001-of-00005.safetensors", "model-00002-of-00005.safetensors"
    endpoint.files[second] = endpoint.files[first]
    endpoint.complete()
    with pytest.raises(IntegrityError, match=r"the tensor .* is in model-0000\d"):
        list(stream_of(endpoint).tensors())


def single(header: dict[str, object], data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_tensors_at_odd_offsets_and_without_elements() -> None:
    header = {
        "__metadata__": {"format": "pt"},
        "odd": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},
        "none": {"dtype": "F32", "shape": [0, 4], "data_offsets": [3, 3]},
        "number": {"dtype": "F32", "shape": [], "data_offsets": [3, 7]},
    }
    data = bytes((1, 2, 3)) + struct.pack("<f", 1.5)
    with GrowingEndpoint({"model.safetensors": single(header, data)}).serving() as endpoint:
        endpoint.complete()
        got = dict(stream_of(endpoint).tensors())
    assert got["odd"].tolist() == [1, 2, 3]
    assert got["none"].shape == (0, 4)
    assert got["number"].item() == 1.5


@pytest.mark.parametrize(
    ("header", "size", "says"),
    [
        (b"[]", 100, "not a JSON object"),
        (b"{", 100, "not a JSON object"),
        (b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 8]}}', 8, "do not fit"),
        (b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}}', 0, "do not fit"),
        (b'{"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}', 4, "do not fit"),
        (b'{"a": {"dtype": "U8", "shape": [true], "data_offsets": [0, 1]}}', 1, "do not fit"),
        (b'{"a": {"dtype": "U8", "shape": [4], "data_offsets": [1, 5]}}', 5, "overlaps or leaves a gap"),
        (b'{"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}', 9, "its tensors end at"),
        (b'{"a": 5}', 0, "do not fit"),
    ],
)
def test_headers_that_lie(header: bytes, size: int, says: str) -> None:
    with pytest.raises(IntegrityError, match=says):
        tensor_places(header, "m.safetensors", 8 + len(header) + size)


@pytest.mark.parametrize("first", [b"", bytes(8), struct.pack("<Q", 200), struct.pack("<Q", 1 << 40)])
def test_a_header_without_a_length(first: bytes) -> None:
    with pytest.raises(IntegrityError, match="no valid length"):
        header_length(first, "m.safetensors", 100)


def test_spans_cover_all_tensors_and_are_bounded(dense: Path) -> None:
    path = dense / "model-00001-of-00005.safetensors"
    data = path.read_bytes()
    length = header_length(data[:8], path.name, len(data))
    places = tensor_places(data[8 : 8 + length], path.name, len(data))
    spans = spans_of(path.name, places, 10_000)
    assert [place for span in spans for place in span.tensors] == places
    assert all(span.end - span.start <= 10_000 or len(span.tensors) == 1 for span in spans)
    assert spans[-1].end == len(data)


def test_every_type_of_the_format_has_its_size_in_torch() -> None:
    assert {name: dtype.itemsize for name, dtype in _DTYPES.items()} == BYTES
