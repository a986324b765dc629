"""An alias in real processes: set at a seeder's coordinator, fetched by its name, left in the cache."""

from pathlib import Path

from tests.support.processes import Nodes


def test_a_fetch_by_an_alias_leaves_its_name_in_the_cache(nodes: Nodes, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text("{}")
    (source / "weights.bin").write_bytes(bytes(range(256)) * 4000)
    endpoint, _ = nodes.hub(source)
    seeder = nodes.seed("org/model", "--endpoint", endpoint).ready()
    where = ("--coordinator", seeder["coordinator"])
    nodes.ok("seeder", "alias", "set", "org/model@stable", seeder["commit"], *where)
    done = nodes.fetch("peer", "org/model@stable", "--endpoint", endpoint, *where).wait()
    assert (done.code, done.json["commit"]) == (0, seeder["commit"]), done.err
    refs = nodes.cache("peer") / "models--org--model" / "refs"
    assert {each.name: each.read_text() for each in refs.iterdir()} == {"stable": seeder["commit"]}
