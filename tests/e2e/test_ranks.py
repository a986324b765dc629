"""Ranks on nodes of their own: two stages of a pipeline, of which a third node gets a copy, and four ranks of a mixture
of experts."""

import random
import signal
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tests.support.processes import PATIENCE, Nodes, eventually, token_file

REPO = "org/model"
DEAD = "http://127.0.0.1:9"
LAYERS = 4


def test_two_stages_are_a_copy_together(nodes: Nodes, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text("{}")
    numbers = random.Random(1)
    weights = {
        f"model.layers.{layer}.mlp.weight": torch.frombuffer(bytearray(numbers.randbytes(1 << 20)), dtype=torch.uint8)
        for layer in range(LAYERS)
    }
    save_file(weights, source / "model.safetensors")
    seeder = nodes.seed(source, "--as", REPO)
    coordinator = str(seeder.ready()["coordinator"])
    where = ("--coordinator", coordinator, "--endpoint", DEAD)
    stages = []
    for stage in range(2):
        plan, out = tmp_path / f"plan-{stage}.toml", tmp_path / f"stage-{stage}.safetensors"
        plan.write_text(f'rest = "nothing"\n[[part]]\nlayers = "{2 * stage}-{2 * stage + 1}"\n')
        options = ("--plan", plan, "--out", out, "--seed-time", "1000")
        running = nodes.fetch(f"stage-{stage}", REPO, *where, *options, address=f"127.0.0.{11 + stage}")
        result = running.ready()
        assert (result["sizes"]["own"], result["sizes"]["shared"]) == (0, 2 << 20)
        assert 2 << 20 <= result["sizes"]["in_blocks"] <= (2 << 20) + 3 * (16 << 10)
        assert result["from_peers"] + result["from_cache"] >= result["sizes"]["in_pieces"], "it serves pieces"
        found = load_file(out)
        assert set(found) == {f"model.layers.{layer}.mlp.weight" for layer in (2 * stage, 2 * stage + 1)}
        assert all(torch.equal(found[name], weights[name]) for name in found)
        assert not list(nodes.cache(f"stage-{stage}").rglob("snapshots/*/model.safetensors"))
        stages.append(running)
    whole = nodes.fetch("whole", REPO, *where, address="127.0.0.21").wait()
    assert whole.code == 0, whole.err
    assert (Path(whole.json["path"]) / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    eventually(lambda: all(each.process.poll() is None for each in stages), PATIENCE)


EXPERTS, HIDDEN, RANKS = 8, 1024, 4


def mixture() -> dict[str, torch.Tensor]:
    """Two layers of a mixture of experts, 59 MB."""
    torch.manual_seed(1)
    shapes = {"model.norm.weight": (HIDDEN,)}
    for layer in range(2):
        of = f"model.layers.{layer}"
        shapes |= {f"{of}.input_layernorm.weight": (HIDDEN,), f"{of}.self_attn.q_proj.weight": (2 * HIDDEN, HIDDEN)}
        for expert in range(EXPERTS):
            shapes |= {f"{of}.mlp.experts.{expert}.{name}.weight": (HIDDEN // 2, HIDDEN) for name in ("gate", "up")}
            shapes[f"{of}.mlp.experts.{expert}.down.weight"] = (HIDDEN, HIDDEN // 2)
    return {name: torch.randn(shape).to(torch.bfloat16) for name, shape in shapes.items()}


def plan_of(rank: int) -> str:
    """Two experts, and a fourth of the queries; the norms of all ranks."""
    own = f'[[part]]\nexperts = "{2 * rank}-{2 * rank + 1}"\n'
    others = '[[part]]\ntensors = "*.experts.*"\nshare = "nothing"\n'
    cut = f'[[part]]\ntensors = "*.q_proj.*"\nshare = "cut"\nof = {RANKS}\nindex = {rank}\n'
    return own + others + cut


def local(weights: dict[str, torch.Tensor], rank: int) -> dict[str, torch.Tensor]:
    """The part of a rank, by torch's own slicing."""
    found = {}
    for name, tensor in weights.items():
        if ".experts." in name:
            if int(name.split(".")[5]) // 2 == rank:
                found[name] = tensor
        else:
            found[name] = tensor.chunk(RANKS, 0)[rank] if "q_proj" in name else tensor
    return found


def test_a_rank_downloads_its_share_and_what_is_shared_within_a_hundredth(nodes: Nodes, tmp_path: Path) -> None:
    source, weights = tmp_path / "source", mixture()
    source.mkdir()
    (source / "config.json").write_text("{}")
    save_file(weights, source / "model.safetensors")
    seeder = nodes.seed(source, "--as", REPO)
    where = ("--coordinator", str(seeder.ready()["coordinator"]), "--endpoint", DEAD)
    for rank in range(RANKS):
        plan, out = tmp_path / f"plan-{rank}.toml", tmp_path / f"rank-{rank}.safetensors"
        plan.write_text(plan_of(rank))
        done = nodes.fetch(
            f"rank-{rank}", REPO, *where, "--plan", plan, "--out", out, address=f"127.0.0.{31 + rank}"
        ).wait()
        assert done.code == 0, done.err
        result, expected = done.json, local(weights, rank)
        found = load_file(out)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        needed = sum(tensor.nbytes for tensor in expected.values())
        assert (
            needed
            < result["sizes"]["in_blocks"]
            <= result["from_peers"]
            <= 1.01 * needed
            < result["sizes"]["in_pieces"]
        )
        assert (result["from_cache"], result["from_mirrors"]) == (0, 0)


def test_an_interrupted_rank_goes_on_with_the_blocks_that_came(nodes: Nodes, tmp_path: Path) -> None:
    source, weights = tmp_path / "source", mixture()
    source.mkdir()
    (source / "config.json").write_text("{}")
    save_file(weights, source / "model.safetensors")
    plan, out = tmp_path / "plan.toml", tmp_path / "rank.safetensors"
    # A fourth of each projection: most of it comes in blocks.
    cut = '[[part]]\ntensors = "*.experts.*"\nshare = "cut"\nof = 4\nindex = 1\n'
    plan.write_text(cut + plan_of(0))
    seeder = nodes.seed(source, "--as", REPO, "--upload-limit", "1000000")
    where = ("--coordinator", str(seeder.ready()["coordinator"]), "--endpoint", DEAD, "--plan", plan, "--out", out)
    running = nodes.fetch("rank", REPO, *where)
    eventually(lambda: running.progress().get("done", 0) >= 3_000_000, PATIENCE, lambda: "".join(running.err))
    stopped = running.stop(signal.SIGINT)
    assert stopped.code == 130, stopped.err
    assert not out.exists()
    assert not list(nodes.cache("rank").rglob("snapshots/*/model.safetensors"))
    done = nodes.fetch("rank", REPO, *where).wait()
    assert done.code == 0, done.err
    assert done.json["from_cache"] >= 2_000_000
    assert done.json["from_cache"] + done.json["from_peers"] <= done.json["sizes"]["in_blocks"] + 65_536
    found = load_file(out)
    for name, tensor in weights.items():
        part = tensor.chunk(4, 0)[1] if "experts" in name else tensor.chunk(RANKS, 0)[0] if "q_proj" in name else tensor
        assert torch.equal(found[name], part), name


def test_a_rank_of_a_private_snapshot_gets_blocks_as_a_member(nodes: Nodes, tmp_path: Path) -> None:
    source, weights, token = tmp_path / "source", mixture(), token_file(tmp_path / "token")
    source.mkdir()
    (source / "config.json").write_text("{}")
    save_file({name: tensor for name, tensor in weights.items() if "layers.0" in name}, source / "model.safetensors")
    made = nodes.ok("seeder", "ca", "init", "--folder", tmp_path / "ca", "--json").json
    config, plan, out = tmp_path / "seeder.toml", tmp_path / "plan.toml", tmp_path / "rank.safetensors"
    config.touch(mode=0o600)
    config.write_text(f'[private]\nca_file = "{made["certificate"]}"\nca_key = "{made["key"]}"\n')
    seeder = nodes.seed(source, "--as", REPO, "--private", "--token-file", token, "--config", config)
    plan.write_text(plan_of(1))
    where = ("--coordinator", str(seeder.ready()["coordinator"]), "--endpoint", DEAD, "--plan", plan, "--out", out)
    member = {"P2PMODEL_COORDINATOR_TOKEN_FILE": str(token), "P2PMODEL_PUBLISH_TOKEN_FILE": ""}
    done = nodes.fetch("rank", REPO, *where, **member).wait()
    assert done.code == 0, done.err
    sizes = done.json["sizes"]
    assert sizes["in_blocks"] <= done.json["from_peers"] <= 1.01 * (sizes["own"] + sizes["shared"]) < sizes["in_pieces"]
    found = load_file(out)
    assert all(torch.equal(found[name], part) for name, part in local(weights, 1).items() if "layers.0" in name)
