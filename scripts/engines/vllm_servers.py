"""One model from a seeder over a daemon into vLLM, by vLLM's own loader and by the plugin: the same answer, and when.

Each run begins with empty caches. vLLM has a cache of its own, as in a container, so that all bytes pass the daemon's
hub endpoint.
"""

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.request import Request, urlopen

REPO = "org/small"
PROMPT = "The picture shows a red circle beside"
START_SECONDS = 600.0
ANSWER_SECONDS = 120.0
DEAD = "http://127.0.0.1:9"
LAYERS = 24
"""Of 4.1 million parameters each: about 200 MB in all."""
RAW = "docs/benchmarks/raw/engines.json"


@dataclass(frozen=True)
class ServerRun:
    """Seconds since vLLM was started, and the answer."""

    loader: str
    transferred: float
    """The daemon had the last byte."""
    loaded: float
    """vLLM's log said that the weights are loaded."""
    ready: float
    """/health answered."""
    weights_line: str
    answer: str


def build_model(folder: Path) -> Path:
    """A Qwen3 with a head size that vLLM's CPU kernels have, and the tokenizer of the tiny Qwen3-VL."""
    import shutil  # noqa: PLC0415 - the help needs a plain Python alone

    import torch  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    from scripts.demonstration.tiny_qwen3_vl import build  # noqa: PLC0415

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    tokenizer = build(folder / "tokenizer")
    model = folder / "model"
    model.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(tokenizer / name, model / name)
    sizes = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": LAYERS, "head_dim": 64}
    heads = {"num_attention_heads": 8, "num_key_value_heads": 4, "max_position_embeddings": 512}
    torch.manual_seed(0)
    made = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(vocab_size=512, **sizes, **heads))
    made.to(torch.bfloat16).save_pretrained(model, max_shard_size="32MB")
    return model


def node(root: Path, name: str) -> dict[str, str]:
    """The environment of a node with a cache of its own."""
    home = root / name
    home.mkdir()
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "P2PMODEL_", "XDG_"))}
    return kept | {"HF_HOME": str(home), "HOME": str(home)}


def serve(loader: str, root: Path, coordinator: str, shards: int, extra: list[str]) -> ServerRun:
    """Start a daemon and vLLM behind it with `loader`, and ask for an answer."""
    from scripts.bench.rigs.programs import Program  # noqa: PLC0415

    python = Path(os.environ["VLLM_VENV"]) / "bin/python"
    with ExitStack() as stack:
        where = ("--coordinator", coordinator, "--endpoint", DEAD, "--swarm-listen", "127.0.0.11:0")
        own = [sys.executable, "-m", "p2pmodel", "daemon", *where, "--hub-listen", "127.0.0.1:0", "--json"]
        environment = node(root, f"daemon-{loader}") | {"P2PMODEL_SWARM_TRUST": "coordinator"}
        daemon = Program(own, stack, env=environment, log=root / f"daemon-{loader}.log")
        hub = daemon.first()["hub"]
        log = root / f"vllm-{loader}.log"
        options = ["--model", REPO, "--load-format", loader, "--port", str(free_port()), "--host", "127.0.0.1"]
        options += ["--max-model-len", "256", "--gpu-memory-utilization", "0.2", "--enforce-eager", *extra]
        theirs = node(root, f"vllm-{loader}") | {"HF_ENDPOINT": hub, "HF_HUB_DISABLE_XET": "1", **_QUIET}
        began = time.monotonic()
        module = "vllm.entrypoints.openai.api_server"
        vllm = Program([str(python), "-m", module, *options], stack, env=theirs, log=log)
        url = f"http://127.0.0.1:{options[options.index('--port') + 1]}"
        transferred = loaded = 0.0
        line = ""
        while not answers(f"{url}/health"):
            if vllm.ended or time.monotonic() - began > START_SECONDS:
                raise SystemExit(f"vLLM did not start:\n{log.read_text()[-4000:]}")
            transferred = transferred or (time.monotonic() - began if complete(environment, shards) else 0.0)
            line = line or weights_line(vllm, log)
            loaded = loaded or (time.monotonic() - began if line else 0.0)
            time.sleep(0.1)
        ready = time.monotonic() - began
        answer = completion(url)
        return ServerRun(loader, round(transferred, 2), round(loaded, 2), round(ready, 2), line, answer)


_QUIET = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
_LOADED = re.compile(r"(p2pmodel: \d+ tensors.*|Loading weights took.*)")


def weights_line(program: Any, log: Path) -> str:
    """The line of vLLM's log that says that the weights are loaded; "" before."""
    text = log.read_text(errors="replace") + "".join(line for _, line in program.lines)
    found = _LOADED.search(text)
    return found[1].strip() if found else ""


def complete(environment: dict[str, str], shards: int) -> bool:
    """Whether the daemon of this environment has all weight files: their links appear when they are verified."""
    return len(list(Path(environment["HF_HOME"]).glob("hub/models--*/snapshots/*/*.safetensors"))) == shards


def free_port() -> int:
    """A port that was free a moment ago."""
    import socket  # noqa: PLC0415

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str) -> bool:
    """Whether GET gives 200."""
    try:
        with urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def completion(url: str) -> str:
    """The greedy continuation of PROMPT."""
    body = {"model": REPO, "prompt": PROMPT, "max_tokens": 16, "temperature": 0}
    request = Request(f"{url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urlopen(request, timeout=ANSWER_SECONDS) as response:
        return str(json.load(response)["choices"][0]["text"])


def runs(options: argparse.Namespace) -> Iterator[ServerRun]:
    """One run for each loader, with the same seeder."""
    from scripts.bench.rigs.programs import Program  # noqa: PLC0415

    with TemporaryDirectory(prefix="engines-") as folder, ExitStack() as stack:
        root = Path(folder)
        model = build_model(root)
        where = ("--listen", "127.0.0.3:0", "--swarm-listen", "127.0.0.3:0", "--upload-limit", str(options.rate))
        command = [sys.executable, "-m", "p2pmodel", "seed", str(model), "--as", REPO, *where, "--json"]
        seeder = Program(command, stack, env=node(root, "seeder"), log=root / "seeder.log")
        coordinator = str(seeder.first()["coordinator"])
        size = sum(path.stat().st_size for path in model.iterdir())
        print(f"{REPO}: {size / 1e6:.0f} MB from one seeder at {options.rate / 1e6:.0f} MB/s, {os.cpu_count()} cores")
        for loader in ("auto", "p2pmodel"):
            yield serve(loader, root, coordinator, len(list(model.glob("*.safetensors"))), options.vllm)


def main() -> None:
    """Run both, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rate", type=int, default=6_000_000, help="bytes a second of the seeder (6000000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help=f"also write the figures, as in {RAW}")
    parser.add_argument("vllm", nargs="*", help="further options of vLLM, after --")
    options = parser.parse_args()
    done = []
    for run in runs(options):
        done.append(run)
        print(
            f"--load-format {run.loader:9} last byte at the daemon {run.transferred:6.1f} s, weights loaded"
            f" {run.loaded:6.1f} s, ready {run.ready:6.1f} s   ({run.weights_line})",
            flush=True,
        )
    same = len({run.answer for run in done}) == 1
    print(f"the same answer: {'yes' if same else 'NO'} ({done[0].answer!r})")
    if options.json:
        options.json.write_text(json.dumps({"rate": options.rate, "runs": [asdict(run) for run in done]}, indent=2))
    sys.exit(not same)


if __name__ == "__main__":
    main()
