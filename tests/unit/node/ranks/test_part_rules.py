"""Plan files: which table decides, and what is said of a wrong one."""

from pathlib import Path

import pytest

from p2pmodel.core.content.rank_plan import Nothing, Share, Whole
from p2pmodel.core.content.tensor_cuts import Cut
from p2pmodel.errors import InvalidInput
from p2pmodel.node.ranks.part_rules import PartPlan, read_plan

PLAN = """
rest = "nothing"
[[part]]
tensors = "*.self_attn.q_proj.weight"
layers = "0-11"
share = "cut"
dim = 0
of = 8
index = 3
[[part]]
layers = "0-11"
experts = "16-31"
[[part]]
tensors = "*.experts.*"
share = "nothing"
[[part]]
layers = "0-11"
"""


def plan(tmp_path: Path, text: str) -> PartPlan:
    path = tmp_path / "plan.toml"
    path.write_text(text)
    return read_plan(path)


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("model.layers.3.self_attn.q_proj.weight", Cut(0, 8, 3)),
        ("model.layers.12.self_attn.q_proj.weight", Nothing()),
        ("model.layers.11.mlp.experts.16.up_proj.weight", Whole()),
        ("model.layers.11.mlp.experts.15.up_proj.weight", Nothing()),
        ("model.layers.1.input_layernorm.weight", Whole()),
        ("model.embed_tokens.weight", Nothing()),
    ],
)
def test_the_first_table_that_matches_decides(tmp_path: Path, name: str, share: Share) -> None:
    assert plan(tmp_path, PLAN).rule(name, (8, 8)) == share


def test_what_no_table_matches_is_whole_unless_the_plan_says_otherwise(tmp_path: Path) -> None:
    assert plan(tmp_path, "[[part]]\ntensors = 'x'\nshare = 'nothing'\n").rule("y", ()) == Whole()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[part]", "cannot be used"),
        ("", "part: Field required"),
        ("[[part]]\nlayer = '1'\n", "part.0.layer"),
        ("[[part]]\nlayers = 'all'\n", "write one number"),
        ("[[part]]\nshare = 'cut'\nof = 2\nindex = 2\n", "index 2 is not below of = 2"),
        ("[[part]]\ndim = 1\n", "need share = 'cut'"),
        ("[[part]]\nshare = 'half'\n", "part.0.share"),
    ],
)
def test_a_wrong_plan_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        plan(tmp_path, text)
    assert said in caught.value.what
    assert "\n" not in caught.value.what


def test_a_plan_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="No such file"):
        read_plan(tmp_path / "none.toml")
