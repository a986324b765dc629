"""`fetch --print-serve` and `--exec` with a cache and without a network: output, and refused options."""

import json
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from p2pmodel.cli.fetch.fetch import fetch
from p2pmodel.errors import InvalidInput, P2PModelError
from p2pmodel.store.cache import HubCache
from tests.support.hub_snapshot import snapshot_of
from tests.support.stored import publish

CONFIG = {"architectures": ["A"], "model_type": "a", "dtype": "bfloat16", "num_attention_heads": 8}


@pytest.fixture
def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in {"HF_HUB_CACHE": tmp_path / "hub", "HF_HUB_OFFLINE": 1, "HOME": tmp_path}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # whatever GPUs this machine has
    monkeypatch.chdir(tmp_path)
    files = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": bytes(1000), "m.gguf": b"GGUF"}
    cache, whole = HubCache(tmp_path / "hub"), snapshot_of(files)
    publish(cache, whole)
    return cache.repo(whole.manifest.repo).snapshot(whole.commit)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(fetch, ["org/model", *arguments], standalone_mode=False, catch_exceptions=False)


def test_the_command_is_printed_in_place_of_the_path(snapshot: Path) -> None:
    done = invoke("--print-serve", "vllm")
    [line] = done.stdout.splitlines()
    served = ["vllm", "serve", str(snapshot), "--served-model-name", "org/model", "--dtype", "bfloat16"]
    assert shlex.split(line) == ["HF_HUB_OFFLINE=1", *served]
    assert str(snapshot) in done.stderr.splitlines()
    assert "no GPU is seen here; where several serve 1.0 kB of weights, add --tensor-parallel-size N" in done.stderr


def test_the_command_in_json(snapshot: Path) -> None:
    plain = json.loads(invoke("--print-serve", "sglang", "--json").stdout)
    assert plain["path"] == str(snapshot)
    assert plain["serve"]["command"][:5] == ["python", "-m", "sglang.launch_server", "--model-path", str(snapshot)]
    assert plain["serve"]["environment"] == {"HF_HUB_OFFLINE": "1"}


def test_a_file_that_is_named_is_the_model_of_llama_cpp(snapshot: Path) -> None:
    done = invoke("m.gguf", "--print-serve", "llama.cpp", "-q")
    assert shlex.split(done.stdout) == ["llama-server", "--model", f"{snapshot}/m.gguf", "--alias", "org/model"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--exec", "no-such-engine {path}"), "there is no program no-such-engine"),
        (("--exec", "true", "--load"), "--exec and --load were given; they exclude each other"),
        (("--print-serve", "vllm", "--prompt", "hi"), "--print-serve and --load were given"),
        (("--exec", "true", "--print-serve", "vllm"), "--exec and --print-serve were given"),
        (("--exec", "true", "--server", "http://127.0.0.1:9"), "with --server the files stay on that machine"),
        (("config.json", "--print-serve", "vllm"), None),
    ],
)
def test_options_that_do_not_go_together(snapshot: Path, options: tuple[str, ...], says: str | None) -> None:
    with pytest.raises(InvalidInput if says else P2PModelError) as refused:
        invoke(*options)
    assert (says or "is not the folder of a model") in str(refused.value)
