"""A model that is loaded while its files arrive is the model of the complete snapshot, or there is none."""

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from p2pmodel.core.content.request_window import FileRange
from p2pmodel.errors import EntryNotFound, IntegrityError, InvalidInput, LocalResource, NoSpace, P2PModelError
from p2pmodel.loading.answers.chat import answer
from p2pmodel.loading.arrival import overlap
from p2pmodel.loading.arrival.arrival_watch import ArrivalWatch
from p2pmodel.loading.arrival.overlap import ArrivingSnapshot, load_while_arriving
from p2pmodel.loading.model import LoadedModel, load
from p2pmodel.loading.options import LoadOptions, LoadProgress
from p2pmodel.node.snapshot import mirror_copy
from p2pmodel.store.arriving_file import ArrivingFile
from p2pmodel.store.files import partial_file
from p2pmodel.store.growing_file import GrowingFileSink
from tests.support.eventually import PATIENCE, eventually
from tests.support.slow_download import Piece, SlowDownload
from tests.support.tiny_models import WRONG_INDEXES, copy_of

ON_CPU = LoadOptions(device="cpu")
KINDS = ["dense", "untied", "moe", "thinking", "text_only", "llama", "gemma", "fp8_dense", "fp8_moe"]


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


@pytest.fixture(autouse=True)
def recorded_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny models are smaller than what is recorded at a time."""
    monkeypatch.setattr(partial_file, "RECORD_EVERY", 1)


def arriving(download: SlowDownload, **options: object) -> ArrivingSnapshot:
    manifest = download.snapshot.manifest
    return ArrivingSnapshot(download.repo, manifest, manifest.files, **options)  # type: ignore[arg-type]


async def overlapped(
    download: SlowDownload,
    options: LoadOptions = ON_CPU,
    on_progress: Callable[[LoadProgress], object] = lambda _progress: None,
    **more: object,
) -> LoadedModel:
    """The model, loaded while the download runs."""
    downloading = asyncio.create_task(download.run())

    async def complete() -> None:
        await asyncio.wait({downloading})
        downloading.result()

    try:
        return await load_while_arriving(arriving(download, **more), complete(), options, on_progress)
    finally:
        downloading.cancel()
        await asyncio.wait({downloading})


def assert_equal(got: LoadedModel, expected: LoadedModel) -> None:
    assert type(got.model) is type(expected.model)
    tensors, plain = got.model.state_dict(), expected.model.state_dict()
    assert tensors.keys() == plain.keys()
    for name, tensor in plain.items():
        assert tensors[name].dtype == tensor.dtype, name
        assert torch.equal(tensors[name], tensor), name
    for (name, buffer), (_, other) in zip(got.model.named_buffers(), expected.model.named_buffers(), strict=True):
        assert torch.equal(buffer, other), name
    assert got.model.generation_config == expected.model.generation_config
    assert got.weight_bytes == expected.weight_bytes


@pytest.mark.parametrize("in_swarm", [True, False])
@pytest.mark.parametrize("kind", KINDS, indirect=True)
async def test_every_tensor_is_that_of_the_complete_snapshot(kind: Path, tmp_path: Path, in_swarm: bool) -> None:
    download = SlowDownload.of(kind, tmp_path, seed=len(kind.name), chunk=2048)

    async def request(_places: Sequence[FileRange]) -> bool:
        return in_swarm

    loaded = await overlapped(download, request=request, first=1)
    assert_equal(loaded, load(download.folder, device="cpu"))
    assert loaded.after_download_seconds is not None
    assert loaded.model.name_or_path == loaded.model.config.name_or_path == str(download.folder)


async def test_the_answer_is_the_same(dense: Path, images: list[Path], tmp_path: Path) -> None:
    download = SlowDownload.of(dense, tmp_path)
    loaded = await overlapped(download)
    expected = answer(load(dense, device="cpu"), "What?", images[0], max_new_tokens=8)
    assert answer(loaded, "What?", images[0], max_new_tokens=8).text == expected.text


async def test_a_loaded_model_can_be_saved(moe: Path, tmp_path: Path) -> None:
    loaded = await overlapped(SlowDownload.of(moe, tmp_path))
    loaded.model.save_pretrained(tmp_path / "saved")
    loaded.processor.save_pretrained(tmp_path / "saved")
    assert_equal(load(tmp_path / "saved", device="cpu"), load(moe, device="cpu"))


async def test_tensors_are_loaded_before_the_last_piece_arrives(dense: Path, tmp_path: Path) -> None:
    """All but one piece arrives; the download goes on once half of the tensors are there."""
    seen: list[LoadProgress] = []
    go_on = asyncio.Event()

    class Held(SlowDownload):
        async def _write(self, sinks: dict[str, GrowingFileSink], pieces: Sequence[Piece]) -> None:
            last = max(pieces)
            await super()._write(sinks, [piece for piece in pieces if piece != last])
            await go_on.wait()
            await super()._write(sinks, [last])

    def show(progress: LoadProgress) -> None:
        seen.append(progress)
        if progress.loaded * 4 > progress.total > 0:
            go_on.set()

    download = Held.of(dense, tmp_path, chunk=4096)
    loaded = await overlapped(download, on_progress=show)
    assert_equal(loaded, load(dense, device="cpu"))
    total = sum(file.size for file in download.weights)
    assert seen[-1].phase == "loaded"
    assert 0 < seen[-1].total == seen[-1].loaded < total
    assert any(0 < each.loaded < each.total and each.phase == "loading" for each in seen)


async def test_no_model_before_every_file_is_verified(dense: Path, tmp_path: Path) -> None:
    """All bytes are there, and the tensors loaded, but the fetch has not reported the snapshot complete."""
    download = SlowDownload.of(dense, tmp_path)
    seen: list[LoadProgress] = []
    complete = asyncio.Event()
    loading = asyncio.create_task(load_while_arriving(arriving(download), complete.wait(), ON_CPU, seen.append))
    await download.run()
    await eventually(lambda: any(each.phase == "verifying" for each in seen), what="all tensors are loaded")
    assert not loading.done()
    complete.set()
    assert_equal(await loading, load(dense, device="cpu"))


@pytest.mark.parametrize("what", ["header", "data", "every piece"])
async def test_wrong_bytes_of_a_mirror_are_never_part_of_the_model(dense: Path, tmp_path: Path, what: str) -> None:
    def lie(download: SlowDownload, _number: int, piece: Piece) -> Piece:
        path, offset, data = piece
        first_time = not download.repo.recently_corrupt(download.snapshot.file(path))
        hit = {"header": offset == 0, "data": offset > 0, "every piece": True}[what]
        target = path == download.weights[1].path
        return (path, offset, bytes(len(data))) if hit and target and first_time else piece

    download = SlowDownload.of(dense, tmp_path, before=lie, pause=0.001)
    loaded = await overlapped(download)
    assert download.repo.recently_corrupt(download.weights[1]), "the mirror lied"
    assert_equal(loaded, load(dense, device="cpu"))


async def test_a_model_of_wrong_bytes_is_not_handed_out(dense: Path, tmp_path: Path) -> None:
    """All of it is loaded when the hash of a file proves wrong. Converted: else its tensors are the file itself."""
    converted = replace(ON_CPU, dtype="float32")
    loaded_all = asyncio.Event()

    class Judged(SlowDownload):
        async def _write(self, sinks: dict[str, GrowingFileSink], pieces: Sequence[Piece]) -> None:
            await super()._write(sinks, pieces)
            await loaded_all.wait()

    def lie(download: SlowDownload, _number: int, piece: Piece) -> Piece:
        path, offset, data = piece
        hit = path == download.weights[1].path and offset and not loaded_all.is_set()
        return (path, offset, bytes(len(data))) if hit else piece

    def show(progress: LoadProgress) -> None:
        if progress.phase == "verifying":
            loaded_all.set()

    download = Judged.of(dense, tmp_path, before=lie)
    loaded = await overlapped(download, converted, on_progress=show)
    assert download.repo.recently_corrupt(download.weights[1]), "the mirror lied"
    assert_equal(loaded, load(dense, options=converted))


@pytest.mark.parametrize("error", [NoSpace("the disk is full"), IntegrityError("the torrent is wrong")])
@pytest.mark.parametrize("after", [0, 1, 30])
async def test_a_failed_fetch_ends_the_load_with_its_error(
    dense: Path, tmp_path: Path, error: P2PModelError, after: int
) -> None:
    def fail(_download: SlowDownload, number: int, piece: Piece) -> Piece:
        if number == after:
            raise error
        return piece

    with pytest.raises(type(error), match=error.what):
        await overlapped(SlowDownload.of(dense, tmp_path, before=fail))


async def test_a_temporary_folder_that_cannot_be_used_is_a_clear_error(
    dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(LocalResource, match="gone"):
        await overlapped(SlowDownload.of(dense, tmp_path))


@pytest.mark.parametrize("after", [0, 40])
async def test_a_cancellation_ends_all_waits_and_the_cache_can_be_resumed(
    dense: Path, tmp_path: Path, after: int
) -> None:
    reached, stuck = asyncio.Event(), asyncio.Event()

    class Stuck(SlowDownload):
        async def _write(self, sinks: dict[str, GrowingFileSink], pieces: Sequence[Piece]) -> None:
            await super()._write(sinks, pieces[:after])
            reached.set()
            await stuck.wait()

    loading = asyncio.create_task(overlapped(Stuck.of(dense, tmp_path)))
    await reached.wait()
    await asyncio.sleep(0.3)
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    again = SlowDownload.of(dense, tmp_path)
    assert_equal(await overlapped(again), load(dense, device="cpu"))


async def test_a_model_that_cannot_be_loaded_does_not_wait_for_the_weights(dense: Path, tmp_path: Path) -> None:
    broken = copy_of(dense, tmp_path / "broken")
    (broken / "config.json").write_text('{"model_type": "qwen9"}')
    never = asyncio.Event()
    download = SlowDownload.of(broken, tmp_path, before=lambda *_: None)
    downloading = asyncio.create_task(download.run())
    with pytest.raises(InvalidInput, match="model type `qwen9`"):
        await load_while_arriving(arriving(download), never.wait(), ON_CPU)
    downloading.cancel()
    await asyncio.wait({downloading})


@pytest.mark.parametrize("in_swarm", [True, False])
@pytest.mark.parametrize(("index", "says"), [*WRONG_INDEXES.items()])
async def test_an_index_that_is_none_ends_the_load(
    dense: Path, tmp_path: Path, index: bytes, says: str, in_swarm: bool
) -> None:
    broken = copy_of(dense, tmp_path / "broken")
    (broken / "model.safetensors.index.json").write_bytes(index)

    async def request(_places: Sequence[FileRange]) -> bool:
        return in_swarm

    with pytest.raises(IntegrityError, match=says):
        await asyncio.wait_for(overlapped(SlowDownload.of(broken, tmp_path), request=request), PATIENCE)


@pytest.mark.parametrize("size", [0, 5, 20])
async def test_a_weight_file_without_a_whole_header_ends_the_load(text_only: Path, tmp_path: Path, size: int) -> None:
    broken = copy_of(text_only, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(bytes(size))
    with pytest.raises(IntegrityError, match="header"):
        await asyncio.wait_for(overlapped(SlowDownload.of(broken, tmp_path)), PATIENCE)


async def test_a_snapshot_without_safetensors_is_judged_once_it_is_complete(dense: Path, tmp_path: Path) -> None:
    bare = copy_of(dense, tmp_path / "bare")
    for path in bare.glob("*.safetensors*"):
        path.unlink()
    with pytest.raises(EntryNotFound, match="has no weights"):
        await overlapped(SlowDownload.of(bare, tmp_path))


async def test_a_complete_snapshot_is_loaded_at_once(text_only: Path, tmp_path: Path) -> None:
    download = SlowDownload.of(text_only, tmp_path)
    await download.run()
    loaded = await load_while_arriving(arriving(download), download.complete.wait(), ON_CPU)
    assert_equal(loaded, load(text_only, device="cpu"))


async def test_options_reach_transformers(text_only: Path, tmp_path: Path) -> None:
    options = replace(ON_CPU, dtype="float32", attn="eager")
    loaded = await overlapped(SlowDownload.of(text_only, tmp_path), options)
    assert loaded.model.dtype == torch.float32
    assert loaded.model.config._attn_implementation == "eager"
    assert_equal(loaded, load(text_only, options=options))


async def test_layers_spread_over_devices(dense: Path, tmp_path: Path) -> None:
    loaded = await overlapped(SlowDownload.of(dense, tmp_path), LoadOptions(device_map="auto"))
    assert_equal(loaded, load(dense, options=LoadOptions(device_map="auto")))


async def test_the_next_tensors_are_requested_before_others(dense: Path, tmp_path: Path) -> None:
    """While nothing arrives: the small files and the headers; then the pieces of the first tensors."""
    asked: list[Sequence[FileRange]] = []
    download = SlowDownload.of(dense, tmp_path, pause=0.002)
    shards = [file.path for file in download.weights]

    async def request(places: Sequence[FileRange]) -> bool:
        asked.append(places)
        return True

    await overlapped(download, request=request, first=3)
    assert {"config.json", *shards} <= {place.path for place in asked[0]}


def test_a_look_that_outlives_its_load_opens_nothing(dense: Path, tmp_path: Path) -> None:
    """A thread cannot be cancelled; it may look after the files were closed."""
    download = SlowDownload.of(dense, tmp_path)
    asyncio.run(download.run())
    watch = ArrivalWatch({file.path: ArrivingFile(download.repo, file) for file in download.weights})
    watch.close()
    watch.look()
    with pytest.raises(ValueError, match="has arrived"):
        watch.file(download.weights[0].path).descriptor  # noqa: B018


def test_the_copy_from_mirrors_pulls_as_many_files_as_the_order_expects() -> None:
    assert overlap.MIRROR_FILES_AT_ONCE == mirror_copy.FILES_AT_ONCE
