"""How the tensors of models are divided among ranks, as their configuration in transformers says."""

import json
from pathlib import Path

import pytest

from p2pmodel.core.content.rank_plan import Nothing, Rule, Share, Whole
from p2pmodel.core.content.tensor_cuts import Cut
from p2pmodel.errors import InvalidInput
from p2pmodel.loading.parallel_layout import ParallelRank, parallel_rule

MOE = {
    "model_type": "qwen3_moe",
    "hidden_size": 256,
    "moe_intermediate_size": 64,
    "num_experts": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
}


def rule(tmp_path: Path, config: dict[str, object], rank: ParallelRank, said: list[str] | None = None) -> Rule:
    (tmp_path / "config.json").write_text(json.dumps(config))
    heard: list[str] = []
    found = parallel_rule(tmp_path, rank, heard.append)
    if said is None:
        assert heard == []
    else:
        said += heard
    return found


@pytest.mark.parametrize(
    ("name", "shape", "share"),
    [
        ("model.layers.0.self_attn.q_proj.weight", (256, 256), Cut(0, 4, 3)),
        ("model.layers.0.self_attn.q_proj.bias", (256,), Cut(0, 4, 3)),
        ("model.layers.0.self_attn.k_proj.weight", (64, 256), Cut(0, 2, 1)),
        ("model.layers.0.self_attn.o_proj.weight", (256, 256), Cut(1, 4, 3)),
        ("model.layers.0.self_attn.o_proj.bias", (256,), Whole()),
        ("model.layers.0.self_attn.q_norm.weight", (32,), Whole()),
        ("model.layers.1.mlp.experts.5.gate_proj.weight", (64, 256), Cut(0, 4, 3)),
        ("model.layers.1.mlp.experts.5.down_proj.weight", (256, 64), Cut(1, 4, 3)),
        ("model.layers.1.mlp.experts.5.down_proj.weight_scale_inv", (2, 1), Whole()),
        ("model.layers.1.mlp.gate.weight", (8, 256), Whole()),
        ("model.layers.1.mlp.gate_proj.weight", (64, 256), Cut(0, 4, 3)),
        ("model.embed_tokens.weight", (100, 256), Whole()),
        ("lm_head.weight", (100, 256), Whole()),
    ],
)
def test_a_mixture_of_experts(tmp_path: Path, name: str, shape: tuple[int, ...], share: Share) -> None:
    assert rule(tmp_path, MOE, ParallelRank(4, 3))(name, shape) == share


def test_fused_experts_are_cut_where_their_width_is(tmp_path: Path) -> None:
    of = rule(tmp_path, MOE, ParallelRank(4, 1))
    name = "model.layers.0.mlp.experts.{}"
    assert of(name.format("gate_up_proj"), (8, 128, 256)) == Cut(1, 4, 1, packed=2)
    assert of(name.format("gate_up_proj"), (8, 256, 128)) == Cut(2, 4, 1, packed=2)
    assert of(name.format("down_proj"), (8, 256, 64)) == Cut(2, 4, 1)
    assert of(name.format("down_proj"), (8, 64, 256)) == Cut(1, 4, 1)
    square = rule(tmp_path, MOE | {"moe_intermediate_size": 128}, ParallelRank(4, 1))
    assert square(name.format("gate_up_proj"), (8, 256, 256)) == Whole(), "either way is possible"


def test_experts_by_number(tmp_path: Path) -> None:
    of = rule(tmp_path, MOE, ParallelRank(4, 1, whole_experts=True))
    name = "model.layers.0.mlp.experts.{}.up_proj.weight"
    assert [type(of(name.format(expert), (64, 256))) for expert in range(8)] == [
        *(Nothing, Nothing, Whole, Whole, Nothing, Nothing, Nothing, Nothing)
    ]
    assert of(name.format(2).replace("weight", "weight_scale_inv"), (1, 2)) == Whole()
    assert of("model.layers.0.mlp.experts.gate_up_proj", (8, 128, 256)) == Cut(0, 4, 1)
    assert of("model.layers.0.self_attn.q_proj.weight", (256, 256)) == Cut(0, 4, 1)


def test_the_plan_of_a_language_model_leaves_its_other_towers_alone(tmp_path: Path) -> None:
    config = {"model_type": "qwen3_vl_moe", "text_config": MOE | {"model_type": "qwen3_vl_moe_text"}}
    of = rule(tmp_path, config, ParallelRank(2, 0))
    assert of("model.language_model.layers.0.self_attn.q_proj.weight", (256, 256)) == Cut(0, 2, 0)
    assert of("model.language_model.layers.0.mlp.experts.gate_up_proj", (8, 256, 128)) == Cut(2, 2, 0, packed=2)
    assert of("model.visual.blocks.0.attn.qkv.weight", (768, 256)) == Whole()
    assert of("vision_tower.layers.0.self_attn.q_proj.weight", (256, 256)) == Whole()


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({}, "no config.json that names a model type"),
        ({"model_type": "nothing_known"}, "does not know the model type 'nothing_known'"),
        ({"model_type": "gpt2"}, "knows no division of the model type 'gpt2'"),
        (MOE | {"num_attention_heads": 6}, "6 attention heads cannot be divided among 4 ranks"),
    ],
)
def test_an_unknown_division_is_said_and_everything_is_taken(
    tmp_path: Path, config: dict[str, object], why: str
) -> None:
    said: list[str] = []
    of = rule(tmp_path, config, ParallelRank(4, 0), said)
    assert why in said[0]
    assert of("model.layers.0.self_attn.q_proj.weight", (256, 256)) == Whole()


def test_a_rank_is_below_their_number() -> None:
    with pytest.raises(InvalidInput, match="--rank 4 is not below"):
        ParallelRank(4, 4)


def test_every_known_plan_is_understood_or_taken_whole(tmp_path: Path) -> None:
    """Of all styles in transformers' plans none makes a cut by accident."""
    of = rule(tmp_path, MOE, ParallelRank(4, 0))
    assert of("model.layers.0.self_attn.something_new.weight", (256, 256)) == Whole()
