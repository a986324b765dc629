"""Two stages of a pipeline on two nodes: each gets its layers, and together they are a copy for a third one."""

import random
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tests.support.processes import PATIENCE, Nodes, eventually

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
        assert 2 << 20 <= result["sizes"]["fetched"] <= (2 << 20) + 3 * (128 << 10)
        found = load_file(out)
        assert set(found) == {f"model.layers.{layer}.mlp.weight" for layer in (2 * stage, 2 * stage + 1)}
        assert all(torch.equal(found[name], weights[name]) for name in found)
        assert not list(nodes.cache(f"stage-{stage}").rglob("snapshots/*/model.safetensors"))
        stages.append(running)
    whole = nodes.fetch("whole", REPO, *where, address="127.0.0.21").wait()
    assert whole.code == 0, whole.err
    assert (Path(whole.json["path"]) / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    eventually(lambda: all(each.process.poll() is None for each in stages), PATIENCE)
