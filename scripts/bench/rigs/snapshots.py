"""Snapshots of random bytes, in the shape of a Qwen3-VL repository or as very many small files."""

import json
import os
import random
import subprocess
from pathlib import Path

from scripts.bench.rigs.machine import P2PMODEL

SHARDS = 4
_CHUNK = 1 << 20
_RULES = "*.safetensors filter=lfs diff=lfs merge=lfs -text\ntokenizer.json filter=lfs diff=lfs merge=lfs -text\n"
_SMALL = {
    "README.md": 8_000,
    "LICENSE": 11_000,
    "chat_template.json": 5_500,
    "config.json": 1_500,
    "generation_config.json": 270,
    "preprocessor_config.json": 390,
    "video_preprocessor_config.json": 390,
    "model.safetensors.index.json": 70_000,
    "tokenizer_config.json": 11_000,
}
_VOCABULARY = {"tokenizer.json": 7_000_000, "vocab.json": 2_780_000, "merges.txt": 1_670_000}
_VOCABULARY_SHARE = 0.05
"""Largest share of a small snapshot for the vocabulary."""


def write_random(path: Path, size: int) -> None:
    """A new file of `size` random bytes."""
    with path.open("wb") as out:
        for start in range(0, size, _CHUNK):
            out.write(os.urandom(min(_CHUNK, size - start)))


def write_model(folder: Path, size: int) -> int:
    """About `size` bytes: four shards and thirteen small files. Returns the exact size."""
    (folder / ".gitattributes").write_text(_RULES)
    scale = min(1.0, size * _VOCABULARY_SHARE / sum(_VOCABULARY.values()))
    small = _SMALL | {name: int(full * scale) for name, full in _VOCABULARY.items()}
    for name, count in small.items():
        write_random(folder / name, count)
    shard = max(1, (size - len(_RULES) - sum(small.values())) // SHARDS)
    for number in range(1, SHARDS + 1):
        write_random(folder / f"model-{number:05}-of-{SHARDS:05}.safetensors", shard)
    return total_size(folder)


def write_many(folder: Path, count: int, smallest: int, largest: int) -> int:
    """`count` files of `smallest` to `largest` bytes in folders of a hundred. Returns their total size."""
    dice = random.Random(count)
    for number in range(count):
        path = folder / f"part-{number // 100:03}" / f"{number:06}.bin"
        path.parent.mkdir(exist_ok=True)
        write_random(path, dice.randint(smallest, largest))
    return total_size(folder)


def total_size(folder: Path) -> int:
    """Bytes of all files below `folder`; links are not followed."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def published_size(cache: Path) -> int:
    """Bytes of all snapshots in the hub cache `cache`; links are followed."""
    return sum(path.stat().st_size for path in cache.glob("models--*/snapshots/*/**/*") if path.is_file())


def check_published(cache: Path, size: int) -> None:
    """SystemExit unless the snapshots in `cache` have `size` bytes."""
    if (found := published_size(cache)) != size:
        raise SystemExit(f"the snapshot in {cache} has {found} bytes, not {size}")


def import_directory(source: Path, repo: str, cache: Path) -> str:
    """Import the files below `source` into the hub cache `cache` as `repo`. Returns the commit."""
    command = [*P2PMODEL, "import", str(source), repo, "--cache-dir", str(cache), "-q", "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return str(json.loads(done.stdout)["commit"])
