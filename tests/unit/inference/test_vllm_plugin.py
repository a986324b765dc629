"""The plugin of vLLM, against a double of the few names of vLLM that it uses."""

import dataclasses
import importlib.metadata
import logging
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

from p2pmodel.inference import vllm_plugin
from tests.support.growing_endpoint import REPO, GrowingEndpoint
from tests.unit.inference.test_weight_stream import assert_equal, eventually_requested

ROOT = Path(__file__).parents[3]
PACKAGE = "vllm.model_executor.model_loader"


@dataclasses.dataclass
class LoadConfig:
    load_format: str = "p2pmodel"
    model_loader_extra_config: Any = dataclasses.field(default_factory=dict)


class BaseModelLoader:
    def __init__(self, load_config: LoadConfig) -> None:
        self.load_config = load_config


class DefaultModelLoader(BaseModelLoader):
    calls: ClassVar[list[tuple[str, str]]] = []

    def download_model(self, model_config: Any) -> None:
        self.calls.append(("download", self.load_config.load_format))

    def load_weights(self, model: Any, model_config: Any) -> None:
        assert self.load_config.model_loader_extra_config == {}
        self.calls.append(("load", self.load_config.load_format))

    def track_weights_loading(self, model: Any, loaded: set[str]) -> None:
        missing = {name for name, _ in model.named_parameters()} - loaded
        if missing:
            raise ValueError(f"Following weights were not initialized from checkpoint: {missing}")


class Model:
    """Takes weights as vLLM's models do."""

    def __init__(self, *lacking: str) -> None:
        self.weights: dict[str, torch.Tensor] = {}
        self.lacking = lacking

    def load_weights(self, weights: Iterator[tuple[str, torch.Tensor]]) -> set[str]:
        for name, tensor in weights:
            self.weights[name] = tensor.clone()
        return set(self.weights)

    def named_parameters(self) -> list[tuple[str, torch.Tensor]]:
        return [*self.weights.items(), *((name, torch.zeros(1)) for name in self.lacking)]


@pytest.fixture(autouse=True)
def formats(monkeypatch: pytest.MonkeyPatch) -> dict[str, type]:
    """The double in place of vLLM; the loaders by load format."""
    known: dict[str, type] = {}

    def register_model_loader(load_format: str) -> Callable[[type], type]:
        assert load_format not in known, "vLLM warns about a second registration"
        return lambda loader: known.setdefault(load_format, loader)

    modules = {name: ModuleType(name) for name in ("vllm", "vllm.model_executor", PACKAGE)}
    loading = modules[PACKAGE]
    vars(loading).update(register_model_loader=register_model_loader, _LOAD_FORMAT_TO_MODEL_LOADER=known)
    modules["vllm.model_executor"].model_loader = loading  # type: ignore[attr-defined]
    for name, kind in (("base_loader", BaseModelLoader), ("default_loader", DefaultModelLoader)):
        modules[f"{PACKAGE}.{name}"] = module = ModuleType(f"{PACKAGE}.{name}")
        setattr(module, kind.__name__, kind)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "p2pmodel.inference.vllm_loader", raising=False)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    DefaultModelLoader.calls = []
    vllm_plugin.register()
    vllm_plugin.register()
    return known


@pytest.fixture
def endpoint(dense: Path) -> Iterator[GrowingEndpoint]:
    files = {path.name: path.read_bytes() for path in dense.glob("model*")}
    with GrowingEndpoint(files).serving() as served:
        yield served


def loader(formats: dict[str, type], **extra: object) -> Any:
    return formats["p2pmodel"](LoadConfig(model_loader_extra_config=extra))


def config(model: str = REPO, quantization: str | None = None) -> Any:
    return SimpleNamespace(model=model, revision=None, quantization=quantization)


def test_vllm_finds_the_plugin_by_its_entry_point() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [(name, value)] = project["entry-points"]["vllm.general_plugins"].items()
    assert name == "p2pmodel"
    assert importlib.metadata.EntryPoint(name, value, "vllm.general_plugins").load() is vllm_plugin.register


def test_the_weights_come_from_the_daemon(
    formats: dict[str, type], endpoint: GrowingEndpoint, dense: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "vllm")
    endpoint.complete()
    model, chosen = Model(), loader(formats, endpoint=endpoint.url)
    chosen.download_model(config())
    chosen.load_weights(model, config())
    assert_equal(model.weights, dense)
    assert DefaultModelLoader.calls == []
    [line] = caplog.messages
    assert line.startswith(f"p2pmodel: {len(model.weights)} tensors, ")
    assert line.endswith("s from the daemon")


def test_the_endpoint_of_the_environment(
    formats: dict[str, type], endpoint: GrowingEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint.complete()
    monkeypatch.setenv("HF_ENDPOINT", endpoint.url)
    model = Model()
    loader(formats).load_weights(model, config())
    assert model.weights


@pytest.mark.parametrize("fault", ["no daemon", "another server", "no safetensors"])
def test_without_weights_there_vllm_loads_them_itself(
    formats: dict[str, type], endpoint: GrowingEndpoint, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    url = endpoint.url
    if fault == "no daemon":
        url = "http://127.0.0.1:9"
    elif fault == "another server":
        endpoint.redirects = True
    else:
        endpoint.files.clear()
    chosen = loader(formats, endpoint=url)
    chosen.load_weights(Model(), config())
    assert DefaultModelLoader.calls == [("load", "auto")]
    [line] = caplog.messages
    assert line.startswith(f"p2pmodel: no weights from {url} (")
    assert line.endswith(f": vLLM loads {REPO} itself")
    chosen.download_model(config())
    assert DefaultModelLoader.calls[1:] == [("download", "auto")]


def test_a_folder_is_read_by_vllm(formats: dict[str, type], dense: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "vllm")
    loader(formats, endpoint="http://127.0.0.1:9").load_weights(Model(), config(str(dense)))
    assert DefaultModelLoader.calls == [("load", "auto")]
    assert caplog.messages == [f"p2pmodel: {dense} is a folder: vLLM reads its files"]


def test_a_model_with_weights_of_several_sources(formats: dict[str, type], endpoint: GrowingEndpoint) -> None:
    endpoint.complete()
    model = Model()
    model.secondary_weights = [object()]  # type: ignore[attr-defined]
    loader(formats, endpoint=endpoint.url).load_weights(model, config())
    assert DefaultModelLoader.calls == [("load", "auto")]


def test_a_parameter_without_weights_is_an_error(formats: dict[str, type], endpoint: GrowingEndpoint) -> None:
    endpoint.complete()
    with pytest.raises(ValueError, match=r"not initialized from checkpoint: \{'absent'\}"):
        loader(formats, endpoint=endpoint.url).load_weights(Model("absent"), config())
    loader(formats, endpoint=endpoint.url).load_weights(Model("made later"), config(quantization="fp8"))


def test_wrong_bytes_end_the_start_with_one_line(formats: dict[str, type], endpoint: GrowingEndpoint) -> None:
    endpoint.complete()
    path = "model-00002-of-00005.safetensors"
    endpoint.verified.discard(path)

    class Spoiling(Model):
        def load_weights(self, weights: Iterator[tuple[str, torch.Tensor]]) -> set[str]:
            for _ in weights:
                eventually_requested(endpoint, path)
                endpoint.spoil(path)
                endpoint.verify(path)  # the right bytes, which come too late for what was read
            return set()

    with pytest.raises(RuntimeError, match=r"^p2pmodel: model-0000.* arrived damaged") as raised:
        loader(formats, endpoint=endpoint.url, patience=30).load_weights(Spoiling(), config())
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"end_point": "x"}, "it takes endpoint, connections, patience"),
        ({"endpoint": "ftp://x"}, "is not an http"),
        ({"connections": 0}, "connections must be 1 to 64"),
        ({"patience": "long"}, "patience must be a number of seconds"),
    ],
)
def test_wrong_options(formats: dict[str, type], extra: dict[str, object], says: str) -> None:
    with pytest.raises(Exception, match=says):
        loader(formats, **extra)
