"""The benchmark scripts/bench/load: a load while the files arrive, against one afterwards."""

import argparse
import json
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file

from scripts.bench.rigs.machine import P2PMODEL, describe_machine, environment, file_system
from scripts.bench.rigs.model_loads import REPO
from scripts.bench.rigs.programs import Program
from scripts.bench.rigs.reports import write_json
from scripts.bench.rigs.snapshots import import_directory, total_size
from scripts.demonstration.tiny_qwen3_vl import build

SHARD = 500 << 20
RUN_SECONDS = 1200.0
_SIZES = {
    "vocab_size": 32_768,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
}
Figures = dict[str, Any]


def write_vision_model(folder: Path, layers: int) -> int:
    """A Qwen3-VL with `layers` layers of 100 MB, and the tokenizer of the tiny one. Returns the bytes of all files."""
    build(folder)
    for path in folder.glob("model*.safetensors*"):
        path.unlink()
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= _SIZES | {"num_hidden_layers": layers}
    config["text_config"]["rope_parameters"]["mrope_section"] = [24, 20, 20]
    config["vision_config"] |= {"out_hidden_size": 2048}
    (folder / "config.json").write_text(json.dumps(config))
    with torch.device("meta"):
        model = transformers.Qwen3VLForConditionalGeneration(transformers.AutoConfig.from_pretrained(folder))
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    groups: list[dict[str, torch.Size]] = [{}]
    for name, shape in shapes.items():
        if sum(map(math.prod, groups[-1].values())) * 2 > SHARD:
            groups.append({})
        groups[-1][name] = shape
    index: dict[str, str] = {}
    for number, group in enumerate(groups, 1):
        shard = f"model-{number:05}-of-{len(groups):05}.safetensors"
        tensors = {name: _random(shape) for name, shape in group.items()}
        save_file(tensors, folder / shard, metadata={"format": "pt"})
        index |= dict.fromkeys(group, shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return total_size(folder)


def _random(shape: torch.Size) -> torch.Tensor:
    return torch.randint(-64, 64, shape, dtype=torch.int8).to(torch.bfloat16) / 2048


class LoadBench:
    """The model at a mirror; each run has a seeder with its limit, and an empty cache."""

    def __init__(self, place: Path, layers: int, stack: ExitStack) -> None:
        self._place = place
        source = place / "source"
        source.mkdir()
        self.size = write_vision_model(source, layers)
        import_directory(source, REPO, place / "mirror/hub")
        shutil.rmtree(source)
        command = [*P2PMODEL, "mirror", "serve", "--listen", "127.0.0.2:0", "--json", "-q"]
        mirror = Program(command, stack, env=environment(place / "mirror"), log=place / "mirror.log")
        self._endpoint = mirror.first(600)["endpoint"]

    def run(self, mode: str, rate: float, device: float | None = None) -> Figures:
        """One run at `rate` bytes a second."""
        with ExitStack() as stack:
            command = [*P2PMODEL, "seed", REPO, "--listen", "127.0.0.3:0", "--swarm-listen", "127.0.0.3:0"]
            command += ["--endpoint", self._endpoint, "--upload-limit", str(int(rate)), "--json", "-q"]
            seeder = Program(command, stack, env=environment(self._place / "seeder"), log=self._place / "seeder.log")
            coordinator = seeder.first(600)["coordinator"]
            home = self._place / "client"
            env = environment(home) | {
                "P2PMODEL_COORDINATORS": coordinator,
                "P2PMODEL_SWARM_LISTEN": "127.0.0.4:0",
                "HF_ENDPOINT": self._endpoint,
            }
            program = [sys.executable, "-m", "scripts.bench.rigs.model_loads", mode, *([str(device)] if device else [])]
            done = subprocess.run(program, env=env, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
            shutil.rmtree(home, ignore_errors=True)
        if done.returncode:
            raise SystemExit(f"{mode} failed:\n{done.stderr}")
        found: Figures = json.loads(done.stdout.splitlines()[-1])
        return found

    def pair(self, rate: float, runs: int, device: float | None = None) -> Figures:
        """Both, in turn; the medians, and the ratios to the longer of download and load."""
        serial = _medians([self.run("serial", rate, device) for _ in range(runs)])
        overlapped = _medians([self.run("overlapped", rate, device) for _ in range(runs)])
        download, load = serial["fetched"], serial["loaded"] - serial["fetched"]
        longer = max(download, load)
        tail = overlapped["loaded"] - overlapped["fetched"]
        return {
            "rate": rate,
            "device": device,
            "download_seconds": download,
            "load_seconds": load,
            "serial_seconds": serial["loaded"],
            "overlapped_seconds": overlapped["loaded"],
            "of_longer": overlapped["loaded"] / longer,
            "times_as_quick": serial["loaded"] / overlapped["loaded"],
            "tail_seconds": tail,
            "tail_of_load": tail / load,
            "tail_from_last_byte_seconds": overlapped["loaded"] - overlapped["arrived"],
            "first_token_serial": serial["answered"],
            "first_token_overlapped": overlapped["answered"],
            "memory_serial_mb": serial["memory"] / 1e6,
            "memory_overlapped_mb": overlapped["memory"] / 1e6,
            "largest_tensor_mb": overlapped["largest"] / 1e6,
        }


def _medians(runs: list[Figures]) -> Figures:
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


COLUMNS = (
    ("download_seconds", "download", "{:.2f}"),
    ("load_seconds", "load", "{:.2f}"),
    ("serial_seconds", "serial", "{:.2f}"),
    ("overlapped_seconds", "overlapped", "{:.2f}"),
    ("of_longer", "of longer", "{:.2f}"),
    ("times_as_quick", "quicker", "{:.2f}"),
    ("tail_seconds", "tail", "{:.2f}"),
    ("tail_from_last_byte_seconds", "last byte", "{:.2f}"),
    ("first_token_serial", "token ser.", "{:.2f}"),
    ("first_token_overlapped", "token over.", "{:.2f}"),
    ("memory_serial_mb", "MB ser.", "{:.0f}"),
    ("memory_overlapped_mb", "MB over.", "{:.0f}"),
)


def show(row: Figures) -> None:
    """Print one row."""
    what = f"{row['rate'] / 1e6:.0f} MB/s" + (" and device" if row["device"] else "")
    print(f"{what:20}" + "".join(f"{form.format(row[key]):>12}" for key, _title, form in COLUMNS), flush=True)


def main(options: argparse.Namespace) -> None:
    """Measure, print a table, and write the figures to --json."""
    place = Path(tempfile.mkdtemp(prefix="bench-load-", dir=options.dir))
    try:
        with ExitStack() as stack:
            bench = LoadBench(place, options.layers, stack)
            rig = f"{describe_machine()}, {file_system(place)}, torch {torch.__version__}"
            print(f"{bench.size / 1e9:.2f} GB, {options.runs} runs of each; {rig}")
            print(f"{'':20}" + "".join(f"{title:>12}" for _key, title, _form in COLUMNS))
            rows = []
            for rate in [float(each) * 1e6 for each in options.rates.split(",")]:
                rows.append(bench.pair(rate, options.runs))
                show(rows[-1])
            if options.device_rate:
                rate = options.device_rate * 1e6
                rows.append(bench.pair(rate, options.runs, rate))
                show(rows[-1])
    finally:
        shutil.rmtree(place, ignore_errors=True)
    write_json(options.json, {"bytes": bench.size, "rig": rig, "rows": rows})
