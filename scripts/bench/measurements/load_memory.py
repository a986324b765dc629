"""The benchmark scripts/bench/load-memory: anonymous memory of loads, beyond the weights that a model keeps there."""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file

from scripts.bench.measurements.load import write_vision_model
from scripts.bench.rigs.machine import describe_machine, environment, file_system
from scripts.bench.rigs.reports import write_json
from scripts.bench.rigs.snapshots import import_directory, total_size
from scripts.demonstration.tiny_qwen3_vl import build

SECONDS = 1200.0
HIDDEN, EXPERTS, INTERMEDIATE = 1024, 16, 768
WAYS = ("cpu", "ring")
COLUMNS = (
    ("model", "model"),
    ("anonymous", "anonymous"),
    ("weights", "weights"),
    ("beside", "beside"),
    ("largest", "largest"),
    ("bound", "bound"),
)
Figures = dict[str, Any]


def write_moe_model(folder: Path, layers: int) -> int:
    """A Qwen3-VL-MoE with `layers` layers of 80 MB, its experts transposed as checkpoints of the hub have them, a shard
    for each layer. Returns the bytes of all files."""
    build(folder, moe=True)
    for path in folder.glob("model*.safetensors*"):
        path.unlink()
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= {
        "hidden_size": HIDDEN,
        "num_hidden_layers": layers,
        "num_experts": EXPERTS,
        "num_local_experts": EXPERTS,
        "moe_intermediate_size": INTERMEDIATE,
    }
    config["vision_config"] |= {"out_hidden_size": HIDDEN}
    (folder / "config.json").write_text(json.dumps(config))
    with torch.device("meta"):
        model = transformers.Qwen3VLMoeForConditionalGeneration(transformers.AutoConfig.from_pretrained(folder))
    groups: dict[str, dict[str, torch.Size]] = {}
    for name, parameter in model.named_parameters():
        before, _, after = name.partition(".layers.")
        groups.setdefault(after.partition(".")[0] if before.endswith("language_model") else "rest", {})[name] = (
            parameter.shape
        )
    index: dict[str, str] = {}
    for number, group in enumerate(groups.values(), 1):
        shard = f"model-{number:05}-of-{len(groups):05}.safetensors"
        tensors = {name: _random(_stored(name, shape)) for name, shape in group.items()}
        save_file(tensors, folder / shard, metadata={"format": "pt"})
        index |= dict.fromkeys(group, shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return total_size(folder)


def _stored(name: str, shape: torch.Size) -> tuple[int, ...]:
    if ".experts." not in name:
        return tuple(shape)
    experts, rows, columns = shape
    return experts, columns, rows


def _random(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randint(-64, 64, shape, dtype=torch.int8).to(torch.bfloat16) / 2048


def measured(place: Path, way: str, cache: Path, repo: str, commit: str) -> Figures:
    """One load in a process of its own."""
    program = [sys.executable, "-m", "scripts.bench.rigs.load_memory", way, str(cache), repo, commit]
    done = subprocess.run(
        program, env=environment(place / "client"), capture_output=True, text=True, timeout=SECONDS, check=False
    )
    if done.returncode:
        raise SystemExit(f"{repo}, {way}, failed:\n{done.stderr}")
    found: Figures = json.loads(done.stdout.splitlines()[-1])
    return found


def main(options: argparse.Namespace) -> None:
    """Measure, print a table, and write the figures to --json. Ends with an error if a bound is exceeded."""
    place = Path(tempfile.mkdtemp(prefix="bench-load-memory-", dir=options.dir))
    rows: list[Figures] = []
    try:
        rig = f"{describe_machine()}, {file_system(place)}, torch {torch.__version__}"
        print(f"MB; {rig}")
        print(f"{'':12}" + "".join(f"{title:>11}" for _key, title in COLUMNS))
        kinds = (("dense", write_vision_model, options.layers), ("moe", write_moe_model, options.moe_layers))
        for kind, write, layers in kinds:
            source, cache, repo = place / f"{kind}-source", place / kind, f"bench/{kind}"
            source.mkdir()
            write(source, layers)
            commit = import_directory(source, repo, cache)
            shutil.rmtree(source)
            for way in WAYS:
                row = measured(place, way, cache, repo, commit)
                rows.append({"kind": kind, "way": way} | row)
                cells = "".join(f"{row[key] / 1e6:>11.0f}" for key, _title in COLUMNS)
                print(f"{kind + ', ' + way:12}{cells}", flush=True)
            shutil.rmtree(cache)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    write_json(options.json, {"rig": rig, "rows": rows})
    over = [f"{row['kind']}, {row['way']}" for row in rows if row["beside"] > row["bound"]]
    if over:
        raise SystemExit(f"more memory than the bound: {', '.join(over)}")
