import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from p2pmodel.errors import EntryNotFound, IntegrityError, InvalidInput, LocalResource
from p2pmodel.loading.model import load
from p2pmodel.store.cache import HubCache
from tests.support.hub_snapshot import snapshot_of
from tests.support.stored import publish
from tests.support.tiny_models import copy_of

KINDS = ["dense", "moe", "thinking", "text_only"]


@pytest.fixture
def snapshot(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


def stored(snapshot: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the shards, under its name in the file."""
    return {name: tensor for path in snapshot.glob("model*.safetensors") for name, tensor in load_file(path).items()}


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("snapshot", KINDS, indirect=True)
def test_every_tensor_equals_a_plain_from_pretrained(snapshot: Path) -> None:
    auto = transformers.AutoModelForCausalLM if "text" in snapshot.name else transformers.AutoModelForImageTextToText
    plain = auto.from_pretrained(snapshot, dtype="auto")
    ours = load(snapshot, device="cpu").model
    assert type(ours) is type(plain)
    expected, got = plain.state_dict(), ours.state_dict()
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        assert got[name].dtype == tensor.dtype, name
        assert torch.equal(got[name], tensor), name
    assert ours.generation_config == plain.generation_config


@pytest.mark.parametrize("snapshot", KINDS, indirect=True)
def test_every_tensor_equals_that_of_the_shards(snapshot: Path) -> None:
    got = load(snapshot, device="cpu").model.state_dict()
    for name, tensor in stored(snapshot).items():
        held = tensor.transpose(1, 2) if ".experts." in name else tensor
        assert torch.equal(got[name], held), name


def test_tied_embeddings_are_one_tensor_and_counted_once(dense: Path) -> None:
    loaded = load(dense, device="cpu")
    assert "lm_head.weight" not in stored(dense)
    assert loaded.model.lm_head.weight is loaded.model.get_input_embeddings().weight
    assert loaded.weight_bytes == sum(tensor.nbytes for tensor in stored(dense).values())


def test_what_is_reported(moe: Path) -> None:
    loaded = load(moe, device="cpu")
    assert (loaded.architecture, loaded.device) == ("Qwen3VLMoeForConditionalGeneration", "cpu")
    assert loaded.seconds > 0
    assert loaded.model.generation_config.top_k == 20
    assert not loaded.model.training


def test_a_stray_safetensors_file_is_not_read(dense: Path, tmp_path: Path) -> None:
    snapshot = copy_of(dense, tmp_path / "padded")
    (snapshot / "data-00001.safetensors").write_bytes(b"not even safetensors")
    assert load(snapshot, device="cpu").weight_bytes == load(dense, device="cpu").weight_bytes


def test_an_adapter_beside_the_model_is_named(dense: Path, tmp_path: Path) -> None:
    snapshot = copy_of(dense, tmp_path / "both")
    (snapshot / "adapter_config.json").write_text("{}")
    assert load(snapshot, device="cpu").beside.startswith("the adapter beside the model (adapter_config.json)")
    assert load(dense, device="cpu").beside == ""


def test_a_snapshot_of_symlinks(dense: Path, tmp_path: Path) -> None:
    for path in dense.iterdir():
        (tmp_path / path.name).symlink_to(path)
    assert load(tmp_path, device="cpu").weight_bytes > 0


def test_an_available_gpu_is_used(dense: Path) -> None:
    assert load(dense).device == ("cuda" if torch.cuda.is_available() else "cpu")


def test_missing_shards_are_named(dense: Path, tmp_path: Path) -> None:
    snapshot = copy_of(dense, tmp_path / "partial")
    (snapshot / "model-00003-of-00005.safetensors").unlink()
    with pytest.raises(EntryNotFound, match=r"lacks model-00003-of-00005.safetensors; put the whole model into"):
        load(snapshot, device="cpu")
    dangling = snapshot / "model-00002-of-00005.safetensors"
    dangling.unlink()
    dangling.symlink_to("../../blobs/not-there-yet")
    with pytest.raises(EntryNotFound, match=r"lacks model-00002-of-00005.safetensors and 1 more of 5 shards"):
        load(snapshot, device="cpu")


@pytest.mark.parametrize(
    ("absent", "message"),
    [
        ("model-00005-of-00005.safetensors", "lacks model-00005-of-00005.safetensors"),
        ("config.json", "has no config.json"),
    ],
)
def test_the_advice_depends_on_whether_the_repository_has_the_file(
    dense: Path, tmp_path: Path, absent: str, message: str
) -> None:
    contents = {path.name: path.read_bytes() for path in dense.iterdir()}
    whole = snapshot_of(contents)
    cache = HubCache(tmp_path / "hub")
    publish(cache, whole, paths=[name for name in contents if name != absent])
    with pytest.raises(EntryNotFound, match=f"{message}; run 'p2pmodel fetch' again without"):
        load(cache.repo(whole.manifest.repo).snapshot(whole.commit), device="cpu")
    lacking = snapshot_of({name: data for name, data in contents.items() if name != absent}, repo="org/lacking")
    publish(cache, lacking)
    with pytest.raises(EntryNotFound, match=f"{message}; the repository does not have it"):
        load(cache.repo(lacking.manifest.repo).snapshot(lacking.commit), device="cpu")


def test_no_weights_at_all(text_only: Path, tmp_path: Path) -> None:
    snapshot = copy_of(text_only, tmp_path / "bare")
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(EntryNotFound, match="has no weights"):
        load(snapshot, device="cpu")


def test_no_config(tmp_path: Path) -> None:
    with pytest.raises(EntryNotFound, match=r"has no config\.json"):
        load(tmp_path, device="cpu")


def test_a_truncated_shard(dense: Path, tmp_path: Path) -> None:
    snapshot = copy_of(dense, tmp_path / "truncated")
    shard = snapshot / "model-00004-of-00005.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(IntegrityError, match="a weight file is damaged"):
        load(snapshot, device="cpu")


def test_a_tensor_no_shard_holds_is_not_left_random(dense: Path, tmp_path: Path) -> None:
    snapshot = copy_of(dense, tmp_path / "hole")
    shard = snapshot / "model-00001-of-00005.safetensors"
    tensors = load_file(shard)
    lost = min(tensors)
    del tensors[lost]
    save_file(tensors, shard, metadata={"format": "pt"})
    index = snapshot / "model.safetensors.index.json"
    names = json.loads(index.read_text())["weight_map"]
    edit(index, weight_map={name: shard for name, shard in names.items() if name != lost})
    with pytest.raises(IntegrityError, match=f"lack 1 tensor, {lost} for one"):
        load(snapshot, device="cpu")


def test_a_tensor_of_another_shape(dense: Path, tmp_path: Path) -> None:
    snapshot = copy_of(dense, tmp_path / "shape")
    config = json.loads((snapshot / "config.json").read_text())
    edit(snapshot / "config.json", text_config=config["text_config"] | {"intermediate_size": 96})
    with pytest.raises(IntegrityError, match="another shape"):
        load(snapshot, device="cpu")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"architectures": ["Qwen9ForEverything"]}, "has no architecture 'Qwen9ForEverything'"),
        ({"architectures": None}, "has no architecture ''"),
        (
            {"architectures": ["Own"], "auto_map": {"AutoModel": "code.Own"}},
            r"needs code of its repository \(code\.Own\)",
        ),
        ({"architectures": ["AutoConfig"]}, "has no architecture 'AutoConfig'"),
        ({"model_type": "qwen9"}, "model type `qwen9`"),
        ({"text_config": 5}, "reading .*config.json"),
        (
            {"model_type": "own", "auto_map": {"AutoConfig": "code.Config"}},
            r"needs code of its repository \(code\.Config\)",
        ),
    ],
)
def test_models_that_cannot_be_built(dense: Path, tmp_path: Path, change: dict[str, object], says: str) -> None:
    snapshot = copy_of(dense, tmp_path / "odd")
    (snapshot / "code.py").write_text("raise SystemExit('code of the repository ran')")
    edit(snapshot / "config.json", **change)
    with pytest.raises(InvalidInput, match=says) as error:
        load(snapshot, device="cpu")
    assert "\n" not in str(error.value)


def test_config_that_is_not_json(dense: Path, tmp_path: Path) -> None:
    snapshot = copy_of(dense, tmp_path / "garbage")
    (snapshot / "config.json").write_text("<html>")
    with pytest.raises(IntegrityError, match="not a valid JSON"):
        load(snapshot, device="cpu")


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "meta", ""])
def test_invalid_device_names(dense: Path, device: str) -> None:
    with pytest.raises(InvalidInput, match=f"'{device}' is not a device name; use cpu, cuda or cuda:N"):
        load(dense, device=device)


def test_an_absent_gpu(dense: Path) -> None:
    with pytest.raises(LocalResource, match="this machine has no device cuda:77"):
        load(dense, device="cuda:77")
