"""The bytes of ranks by the plan of `p2pmodel fetch`, on the layouts of published models: in blocks and in pieces."""

import argparse
import json
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from p2pmodel.core.content.layout import Layout, piece_length_for
from p2pmodel.core.content.leaf_proof import PieceTree, asked, proof_length
from p2pmodel.core.content.rank_plan import Nothing, RankPlan, Rule, Share, Whole, rank_plan
from p2pmodel.core.content.shard_header import StoredTensor
from p2pmodel.loading.parallel_layout import ParallelRank, parallel_rule

Headers = dict[str, list[StoredTensor]]

FILE_SIZE = 5 * 10**9
HEADER = 100_000
_QWEN = {"model_type": "qwen3_moe", "num_key_value_heads": 4, "head_dim": 128, "num_experts": 128, "vocab_size": 151936}
MODELS: dict[str, dict[str, Any]] = {
    "Qwen3-235B-A22B": _QWEN
    | {"hidden_size": 4096, "moe_intermediate_size": 1536, "num_hidden_layers": 94, "num_attention_heads": 64},
    "Qwen3-30B-A3B": _QWEN
    | {"hidden_size": 2048, "moe_intermediate_size": 768, "num_hidden_layers": 48, "num_attention_heads": 32},
    "Llama-3.1-8B": {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 128256,
    },
}


def tensors(config: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every tensor."""
    hidden, head = config["hidden_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    yield "lm_head.weight", (config["vocab_size"], hidden)
    yield "model.embed_tokens.weight", (config["vocab_size"], hidden)
    yield "model.norm.weight", (hidden,)
    for layer in range(config["num_hidden_layers"]):
        of = f"model.layers.{layer}"
        yield f"{of}.input_layernorm.weight", (hidden,)
        yield f"{of}.post_attention_layernorm.weight", (hidden,)
        for name, shape in ("q", (queries, hidden)), ("k", (keys, hidden)), ("v", (keys, hidden)):
            yield f"{of}.self_attn.{name}_proj.weight", shape
        yield f"{of}.self_attn.o_proj.weight", (hidden, queries)
        inner = config.get("moe_intermediate_size") or config["intermediate_size"]
        blocks = [f"mlp.experts.{number}" for number in range(config.get("num_experts", 0))] or ["mlp"]
        if "num_experts" in config:
            yield f"{of}.mlp.gate.weight", (config["num_experts"], hidden)
        for block in blocks:
            yield f"{of}.{block}.gate_proj.weight", (inner, hidden)
            yield f"{of}.{block}.up_proj.weight", (inner, hidden)
            yield f"{of}.{block}.down_proj.weight", (hidden, inner)


def stored(config: dict[str, Any]) -> Headers:
    """The tensors by file, as they are stored."""
    files: Headers = {}
    current: list[StoredTensor] = []
    for name, shape in sorted(tensors(config)):
        start = current[-1].end if current else HEADER
        if start > FILE_SIZE or not files:
            current, start = [], HEADER
            files[f"model-{len(files):05}.safetensors"] = current
        current.append(StoredTensor(name, "BF16", shape, start, start + 2 * math.prod(shape)))
    return files


def stage(config: dict[str, Any], ranks: int) -> Rule:
    """The second of `ranks` stages of a pipeline."""
    layers = -(-config["num_hidden_layers"] // ranks)

    def rule(name: str, _shape: tuple[int, ...]) -> Share:
        parts = name.split(".")
        return Whole() if parts[1] == "layers" and int(parts[2]) // layers == 1 else Nothing()

    return rule


def measure(ranks: int) -> list[dict[str, Any]]:
    """A row for each model and division, of its second rank."""
    rows = []
    for model, config in MODELS.items():
        files = stored(config)
        layout = Layout(
            [(path, found[-1].end) for path, found in sorted(files.items())],
            piece_length_for(sum(found[-1].end for found in files.values())),
        )
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "config.json").write_text(json.dumps(config))
            rules = {f"pipeline, {ranks} stages": stage(config, ranks)}
            for name, rank in (
                (f"tensors, {ranks} ranks", ParallelRank(ranks, 1)),
                (f"tensors and experts by number, {ranks} ranks", ParallelRank(ranks, 1, whole_experts=True)),
            ):
                if not rank.whole_experts or "num_experts" in config:
                    rules[name] = parallel_rule(Path(folder), rank, print)
        for name, rule in rules.items():
            rows.append(_row(model, name, layout, rank_plan(files, rule, layout)))
    return rows


def _row(model: str, name: str, layout: Layout, plan: RankPlan) -> dict[str, Any]:
    sizes, proofs = plan.sizes, 0
    for piece, runs in plan.pieces.blocks.items():
        proofs += proof_length(PieceTree.of(layout.piece_range(piece), layout.piece_length), asked(runs))
    return {
        "model": model,
        "division": name,
        "piece_mib": layout.piece_length >> 20,
        "needed_gb": round(sizes.needed / 1e9, 2),
        "in_blocks_gb": round(sizes.in_blocks / 1e9, 2),
        "by_rows_gb": round(sizes.by_rows / 1e9, 2),
        "proofs_gb": round(proofs / 1e9, 3),
        "in_pieces_gb": round(sizes.in_pieces / 1e9, 2),
        "total_gb": round(sizes.total / 1e9, 2),
        "in_blocks_by_needed": round((sizes.in_blocks + proofs) / sizes.needed, 4),
        "in_pieces_by_needed": round(sizes.in_pieces / sizes.needed, 3),
        "requests": sum(len(runs) for runs in plan.pieces.blocks.values()),
    }


def main(options: argparse.Namespace) -> None:
    """Compute, print, and write the figures to --json."""
    rows = measure(options.ranks)
    for row in rows:
        figures = f"needs {row['needed_gb']:7.2f} of {row['total_gb']:7.2f} GB, in blocks {row['in_blocks_gb']:7.2f}"
        times = f"{row['in_blocks_by_needed']:.4f} x with proofs, in pieces {row['in_pieces_by_needed']:.3f} x"
        print(f"{row['model']:16} {row['division']:42} {figures}: {times}")
    if options.json:
        Path(options.json).write_text(json.dumps({"rows": rows}, indent=1) + "\n")
