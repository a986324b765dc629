"""`p2pmodel fetch` and `seed` with a cache and without a network: output and refused options."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from p2pmodel.cli.fetch.fetch import fetch
from p2pmodel.cli.seed import seed
from p2pmodel.core.content.names import Reference
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.errors import EntryNotFound, InvalidInput, NotFound, P2PModelError, Unavailable
from p2pmodel.node.seed.seed import SeedResult
from p2pmodel.service.roles.seeder import Seeder, SeederAddresses
from p2pmodel.store.cache import HubCache
from p2pmodel.swarm.torrents import parse
from tests.support.stored import CONTENTS, publish


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubCache:
    for name, value in {"HF_HUB_CACHE": tmp_path / "hub", "HF_HUB_OFFLINE": 1, "HOME": tmp_path}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.chdir(tmp_path)
    cache = HubCache(tmp_path / "hub")
    publish(cache, refs=("main", "v1.0"))
    return cache


def invoke(verb: object, *arguments: str | Path) -> Result:
    words = [str(argument) for argument in arguments]
    return CliRunner().invoke(verb, words, standalone_mode=False, catch_exceptions=False)  # type: ignore[arg-type]


def refused(error: type[P2PModelError], verb: object, *arguments: str | Path) -> str:
    with pytest.raises(error) as caught:
        invoke(verb, *arguments)
    return str(caught.value)


@pytest.fixture
def snapshot(cache: HubCache) -> Path:
    repo = cache.repo(Reference.parse("org/model").repo)
    return repo.snapshot(repo.commits()[0])


def test_fetch_prints_the_path_and_timings_on_stderr(snapshot: Path) -> None:
    done = invoke(fetch, "org/model")
    assert done.stdout == f"{snapshot}\n"
    assert re.search(r"^219\.2 kB were in the cache already, verified in \d\.\d\d s$", done.stderr, re.MULTILINE)
    assert invoke(fetch, "org/model", "-q").output == f"{snapshot}\n"


def test_fetch_prints_the_files(snapshot: Path) -> None:
    done = invoke(fetch, "org/model", "--progress", "files")
    assert "model-00001.safetensors  179.2 kB" in done.stderr.splitlines()
    assert "empty.txt  0 bytes" in done.stderr.splitlines()


def test_fetch_prints_one_object(snapshot: Path) -> None:
    plain = json.loads(invoke(fetch, "hf://org/model@v1.0", "--json").stdout)
    size = sum(map(len, CONTENTS.values()))
    assert plain["seconds"] >= plain["find_seconds"] + plain["download_seconds"] + plain["verify_seconds"] - 0.002
    assert {key: value for key, value in plain.items() if not key.endswith("seconds")} == {
        "path": str(snapshot),
        "repo": "org/model",
        "commit": snapshot.name,
        "size": size,
        "vouched_by": "cache",
        "from_cache": size,
        "from_peers": 0,
        "from_mirrors": 0,
        "from_other_zones": None,
        "exception": "",
        "unreachable": "",
    }


def test_a_dry_run_lists_the_files_to_download(cache: HubCache, snapshot: Path) -> None:
    blob = (snapshot / "config.json").resolve()
    blob.unlink()
    listed = invoke(fetch, "org/model", "--dry-run")
    header, row = listed.stdout.splitlines()
    assert header.split() == ["DOWNLOAD", "REUSED", "ADOPTED", "RESUMED", "BEFORE", "AFTER", "FILE"]
    assert row.split() == ["22", "bytes", "-", "-", "-", "22", "bytes", "22", "bytes", "config.json"]
    assert f"1 file, 22 bytes to download of org/model@{snapshot.name}" in listed.stderr
    plain = json.loads(invoke(fetch, "org/model", "--dry-run", "--json").stdout)
    assert (plain["repo"], plain["commit"], plain["download"]) == ("org/model", snapshot.name, 22)
    assert [(file["path"], file["size"], file["download"]) for file in plain["files"]] == [("config.json", 22, 22)]
    assert not blob.exists()
    assert invoke(fetch, "org/model", "--dry-run", "--include", "*.safetensors").stdout == ""


@pytest.mark.parametrize(
    ("error", "arguments", "message"),
    [
        (EntryNotFound, ("org/model", "--include", "*.gguf"), "no file of org/model matches"),
        (Unavailable, ("org/other",), "org/other@main is not in this cache"),
        (InvalidInput, ("org/model", "--image", "x.png"), "an image was given without a prompt"),
        (InvalidInput, ("org/model/x",), "'org/model/x' is not a repository id"),
        (InvalidInput, ("x.torrent", "--revision", "main"), "--revision goes with a repository"),
        (InvalidInput, ("org/model", "--peer", "6881"), "'6881' is not an address"),
        (InvalidInput, ("org/model", "--endpoint", "ftp://m"), "ftp://m"),
        (NotFound, ("absent.torrent",), "there is no file absent.torrent"),
    ],
)
def test_invalid_options_of_fetch(
    cache: HubCache, error: type[P2PModelError], arguments: tuple[str, ...], message: str
) -> None:
    assert message in refused(error, fetch, *arguments)


def test_seed_once_writes_the_torrent_and_prints_its_summary(cache: HubCache, snapshot: Path, tmp_path: Path) -> None:
    done = invoke(seed, "org/model", "--once", "-o", tmp_path / "m.torrent", "--endpoint", "http://m.test")
    metainfo = parse((tmp_path / "m.torrent").read_bytes())
    assert done.stdout == f"{snapshot}\n"
    assert f"org/model@{snapshot.name}, 219.2 kB, {metainfo.info_hash}" in done.stderr
    assert "magnet:?xt=urn:btmh:1220" in done.stderr
    assert "on each node" not in done.stderr
    assert metainfo.webseeds == ("http://m.test/org/model/resolve/",)


def test_seed_once_as_json(cache: HubCache, snapshot: Path) -> None:
    plain = json.loads(invoke(seed, "org/model", "--once", "--json", "--format", "v1", "--format", "v2").stdout)
    assert (plain["path"], plain["commit"], plain["formats"]) == (str(snapshot), snapshot.name, ["v2", "v1"])
    assert (plain["coordinator"], plain["peer"], plain["from_mirrors"]) == (None, None, 0)


def test_a_directory_is_seeded_under_its_name(cache: HubCache, tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "model.safetensors").write_bytes(b"weights")
    plain = json.loads(invoke(seed, "checkpoint", "--as", "org/own@v2", "--once", "--json").stdout)
    assert cache.repo(Reference.parse("org/own").repo).refs() == {"v2": plain["commit"]}


@pytest.mark.parametrize(
    ("options", "name"),
    [((), "org/model"), (("--revision", "v1.0"), "org/model@v1.0"), (("@v1.0",), "org/model@v1.0")],
)
def test_the_command_for_the_nodes_fetches_the_same(
    cache: HubCache, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], name: str
) -> None:
    async def run(self: Seeder, _role: object, on_ready: Callable[[SeedResult, SeederAddresses], None]) -> None:
        on_ready(await self.build(), SeederAddresses(("http://10.0.0.1:6969",), ListenAddress("10.0.0.1", 6881)))

    monkeypatch.setattr(Seeder, "run", run)
    inline = [option for option in options if option.startswith("@")]
    flags = [option for option in options if not option.startswith("@")]
    done = invoke(seed, "org/model" + "".join(inline), *flags)
    assert f"on each node: p2pmodel fetch {name} --coordinator http://10.0.0.1:6969\n" in done.stderr
    assert "xs=http" in done.stderr


def test_with_a_token_the_command_names_its_file(
    cache: HubCache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def run(self: Seeder, _role: object, on_ready: Callable[[SeedResult, SeederAddresses], None]) -> None:
        on_ready(await self.build(), SeederAddresses(("http://10.0.0.1:6969",), ListenAddress("10.0.0.1", 6881)))

    monkeypatch.setattr(Seeder, "run", run)
    (tmp_path / "token").touch(mode=0o600)
    (tmp_path / "token").write_text("0123456789abcdef0123456789abcdef")
    for flags in ((), ("--json",)):
        done = invoke(seed, "org/model", "--token-file", tmp_path / "token", *flags)
        named = (
            f"P2PMODEL_COORDINATOR_TOKEN_FILE={tmp_path}/token p2pmodel fetch org/model --coordinator http://10.0.0.1"
        )
        assert (named in done.output) == (not flags)
        assert "0123456789abcdef" not in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("./",), "'./' is a directory; name the snapshot with --as"),
        (("absent", "--as", "org/own"), "'absent' is not a directory"),
        (("org/model", "--public-url", "coordinator.test"), "--public-url: 'coordinator.test' is not an http"),
        (("org/model", "--listen", "0.0.0.0:6969"), "is reachable from other machines"),
        (("org/model", "--listen", "6969"), "'6969' is not an address"),
        (("org/model", "--revision", "a b"), "'a b' is not a revision"),
        (("org/model@v1", "--revision", "v2"), "disagree"),
        (("org/model", "--assemble"), "--assemble needs a coordinator"),
        ((".", "--as", "org/own", "--assemble", "--coordinator", "http://c.test"), "leave it out for a directory"),
    ],
)
def test_invalid_options_of_seed(cache: HubCache, arguments: tuple[str, ...], message: str) -> None:
    assert message in refused(InvalidInput, seed, *arguments)
