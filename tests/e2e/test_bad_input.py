"""Mistakes of a user: one clear line, a stable exit code, empty stdout, and no data lost."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import libtorrent as lt
import pytest

from p2pmodel.swarm import bencode
from tests.support.command_line import CommandLine
from tests.support.fake_hub import FakeHub
from tests.support.hub_snapshot import snapshot_of
from tests.support.in_thread import in_thread
from tests.support.processes import Nodes
from tests.support.tls import certificate, tls_server
from tests.support.torrent_files import SMALL, torrent_of
from tests.support.web_answers import Page, web_answers

UNREACHABLE = "http://127.0.0.1:9"
MODEL = snapshot_of({"config.json": b"{}", "model.safetensors": b"w" * 50_000, "notes/read me.txt": b"hello"})
FETCH = ("fetch", "-q", "--endpoint", UNREACHABLE)
HASH = "ab" * 32


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("bogus",), "No such command 'bogus'; see 'p2pmodel --help'"),
        (("fetch", "--qqq"), "No such option '--qqq'; see 'p2pmodel fetch --help'"),
        (("fetch",), "Missing argument 'REPO[@REV]|TORRENT|BUNDLE|URL|MAGNET'"),
        (("torrent", "bogus"), "No such command 'bogus'; see 'p2pmodel torrent --help'"),
        (("verify", "org/model", "more"), "unexpected extra argument"),
        (("fetch", "a/b/c"), "'a/b/c' is not a repository id; write ORG/NAME"),
        (("fetch", "hf://"), "is not a repository id; write ORG/NAME"),
        (("fetch", "hf://datasets/org/da ta"), "is not a repository id"),
        (("fetch", "org/mo del"), "is not a repository id"),
        (("fetch", "../../etc"), "is not a repository id"),
        (("fetch", "org/model@"), "'org/model@' has an empty revision"),
        (("fetch", "org/model@../x"), "'../x' is not a revision; use a branch"),
        (("fetch", "org/model@v1", "--revision", "v2"), "'org/model@v1' and --revision v2 disagree"),
        (("fetch", "x.torrent", "--revision", "v2"), "--revision goes with a repository, not with a torrent"),
        (("fetch", "org/model\x1b[31m"), "is not a repository id"),
        (("fetch", "org/model", "--peer", "here"), "'here' is not an address with its port; write ADDRESS:PORT"),
        (("fetch", "org/model", "--swarm-listen", "here"), "setting swarm.listen"),
        (("fetch", "org/model", "--upload-limit", "-5"), "setting swarm.upload_limit"),
        (("fetch", "org/model", "--endpoint", "ftp://x"), "'ftp://x' is not an http:// or https:// URL"),
        (("fetch", "org/model", "--coordinator", "here"), "'here' is not an http:// or https:// URL"),
        (("fetch", "org/model", "--image", "x.png"), "an image was given without a prompt; add --prompt"),
        (("fetch", "org/model", "--image", "x.png", "--prompt", "?"), "there is no image x.png"),
        (("fetch", "org/model", "--load", "--device", "tpu"), "'tpu' is not a device name; use cpu, cuda"),
        (("fetch", "org/model", "--progress", "fancy"), "'fancy' is not one of"),
        (("fetch", "org/model", "--config", "none.toml"), "there is no settings file none.toml"),
        (("seed", ".", "--listen", "127.0.0.1:0"), "'.' is a directory; name the snapshot with --as ORG/NAME"),
        (("seed", "none", "--as", "org/x"), "'none' is not a directory; --as needs a directory to import"),
        (("seed", "org/x", "-o", "none/x.torrent"), "there is no directory none for the output"),
        (("seed", "org/x", "--listen", "6969"), "'6969' is not an address with its port"),
        (("seed", "org/x", "--listen", "0.0.0.0:0"), "is reachable from other machines, and no token is set"),
        (("seed", "org/x", "--public-url", "here"), "--public-url: 'here' is not an http:// or https:// URL"),
        (("mirror", "serve", "--listen", "[::]:0"), "is reachable from other machines, and no token is set"),
        (("mirror", "serve", "--listen", "127.0.0.1:99999"), "is not an address with its port"),
        (("mirror", "serve", "--token-file", "none"), "the token file none cannot be read: No such file"),
        (("mirror", "serve", "--token-env", "NONE"), "the environment variable NONE is not set"),
        (("coordinator", "--listen", "0.0.0.0:0"), "is reachable from other machines, and no token is set"),
        (("torrent", "create", "org/x", "--tracker", "here"), "'here' is not"),
        (("torrent", "create", "org/x", "-o", "."), "the output . is a directory; name a file in it"),
        (("import", "none", "org/x"), "none is not a directory"),
        (("fetch", "magnet:"), "'magnet:' is not a magnet link; it must contain xt=urn:btmh:1220 and 64 hex digits"),
        (("fetch", f"MAGNET:?xt=urn:btih:{HASH[:40]}"), "the magnet link is v1 only; it must contain"),
        (("fetch", "magnet:?xt=urn:btmh:1220abc"), "the magnet link is without one v2 info-hash"),
        (("fetch", "http://[/x.torrent"), "is not a URL; write http://HOST/NAME.torrent"),
        (("fetch", "http:///x.torrent"), "is not a URL"),
    ],
)
def test_invalid_arguments_exit_with_2_and_change_no_file(cli: CommandLine, args: tuple[str, ...], words: str):
    assert words in cli.refuses(2, *args)
    assert not cli.hub.exists()


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"HF_ENDPOINT": "https://a,b"}, "HF_ENDPOINT: 'b' is not an http:// or https:// URL"),
        ({"HF_ENDPOINT": "hf-mirror.example"}, "HF_ENDPOINT: 'hf-mirror.example' is not an http:// or https:// URL"),
        (
            {"HF_MIRROR_PRIORITY": "nobody"},
            "mirror 'nobody' is neither a URL nor the name of one (official, hf-mirror, gitcode, modelscope)",
        ),
        ({"P2PMODEL_ENDPOINTS": "nobody"}, "mirror 'nobody' is neither a URL"),
        (
            {"P2PMODEL_COORDINATORS": "http://a, b"},
            "setting coordinators or P2PMODEL_COORDINATORS: 'b' is not an http:// or https:// URL",
        ),
        (
            {"P2PMODEL_ORIGIN_PATIENCE": "long"},
            "setting origin.patience or P2PMODEL_ORIGIN_PATIENCE: should be a valid number",
        ),
        ({"P2PMODEL_SWARM_LISTEN": "here"}, "setting swarm.listen or P2PMODEL_SWARM_LISTEN: 'here' is not an address"),
        ({"P2PMODEL_CONFIG": "/none.toml"}, "there is no settings file /none.toml"),
    ],
)
def test_settings_that_make_no_sense_exit_with_2_and_are_named(cli: CommandLine, env: dict[str, str], words: str):
    assert words in cli.refuses(2, "fetch", "-q", "org/model", **env)


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        (b"[swarm", "p2pmodel.toml cannot be read: "),
        (b"\xff", "p2pmodel.toml cannot be read: "),
        (b"color = 1", "/.config/p2pmodel/p2pmodel.toml); see docs/reference/settings.md"),
        (b"watch = 1", "setting watch: expected a table"),
        (b"[[mirrors]]\nname = 'x'", "setting mirrors.0.endpoint: it is missing"),
    ],
)
def test_an_invalid_settings_file(cli: CommandLine, toml: bytes, words: str):
    usual = cli.home / ".config/p2pmodel/p2pmodel.toml"
    usual.parent.mkdir(parents=True)
    usual.write_bytes(toml)
    assert words in cli.refuses(2, "verify", "org/model")


def test_a_settings_file_that_is_a_directory(cli: CommandLine):
    assert "the settings file . cannot be read: Is a directory" in cli.refuses(
        2, "verify", "org/model", "--config", "."
    )


# -- what a hub refuses ------------------------------------------------------------------------------------------


@contextmanager
def hub(**options: Any) -> Iterator[str]:
    with in_thread(FakeHub(MODEL, **options)) as running:
        yield running.url


def both(cli: CommandLine, code: int, ref: str, *args: str, **env: str) -> str:
    """The error line of `fetch`, equal to that of `seed`."""
    quick = {"P2PMODEL_ORIGIN_PATIENCE": "1", "P2PMODEL_ORIGIN_CONNECT_TIMEOUT": "2", **env}
    said = cli.refuses(code, "seed", "-q", "--once", ref, *args, **quick)
    assert said == cli.refuses(code, "fetch", "-q", ref, *args, **quick)
    assert not list(cli.hub.rglob("snapshots")), "a snapshot of an unavailable repository"
    return said


def test_missing_repositories_revisions_and_files_exit_with_3(cli: CommandLine):
    with hub() as url:
        assert "org/other@main was not found" in both(cli, 3, "org/other", "--endpoint", url)
        assert "org/model@v9 was not found" in both(cli, 3, "org/model@v9", "--endpoint", url)
        line = cli.refuses(3, "fetch", "-q", "org/model", "--endpoint", url, "--include", "*.gguf")
        assert "no file of org/model matches --include/--exclude; check the patterns with --dry-run" in line


def test_no_token_and_a_wrong_token(cli: CommandLine):
    with hub(token="right") as url:
        at = {"HF_ENDPOINT": url}
        assert "if it is private, set HF_TOKEN" in both(cli, 3, "org/model", **at)
        line = both(cli, 4, "org/model", HF_TOKEN="wrong", **at)
        assert "no access to org/model@main" in line
        assert "set HF_TOKEN" in line
        assert "wrong" not in line.replace("wrong token", "")
        assert cli("fetch", "-q", "org/model", HF_TOKEN="right", **at).code == 0


def test_a_gated_repository(cli: CommandLine):
    with hub(token="right", gated=True) as url:
        for verb in ("seed", "--once"), ("fetch",):
            line = cli.refuses(4, *verb, "-q", "org/model", HF_ENDPOINT=url)
            assert "gated" in line
            assert "set HF_TOKEN" in line
        assert cli("fetch", "-q", "org/model", HF_ENDPOINT=url, HF_TOKEN="right").code == 0


def test_no_mirror_answers(cli: CommandLine):
    assert "connection refused" in both(cli, 6, "org/model", "--endpoint", UNREACHABLE)
    line = both(cli, 6, "org/model", "--endpoint", "http://no-such-host.invalid", "--endpoint", UNREACHABLE)
    assert "no-such-host.invalid: its name does not resolve (DNS), 127.0.0.1:9: connection refused" in line
    assert "check the network" in line
    assert "no mirror may be asked; unset HF_HUB_OFFLINE" in both(cli, 6, "org/model", HF_HUB_OFFLINE="1")


def test_a_failure_keeps_the_cached_snapshot(cli: CommandLine):
    with hub() as url:
        path = Path(cli.ok("fetch", "-q", "org/model", "--endpoint", url))
        before = contents(path.parents[1])
        cli.refuses(3, "fetch", "-q", "org/model@v9", "--endpoint", url)
        cli.refuses(3, "fetch", "-q", "org/model", "--endpoint", url, "--include", "none")
    with hub(faults=["html"]) as url:
        cli.refuses(6, *FETCH, f"org/model@{'0' * 40}")
    assert cli.ok("fetch", "-q", "org/model", "--endpoint", UNREACHABLE) == str(path)
    assert contents(path.parents[1]) == before


def contents(repo: Path) -> dict[Path, bytes]:
    """The files of a cached repository, but for the empty ones that record when a snapshot was used."""
    return {p: p.read_bytes() for p in repo.rglob("*") if p.is_file() and p.parent.name != "used"}


def test_a_prompt_to_a_snapshot_that_is_not_a_model(cli: CommandLine):
    with in_thread(FakeHub(snapshot_of({"notes.txt": b"no model"}))) as running:
        line = cli.refuses(3, "fetch", "-q", "org/model", "--endpoint", running.url, "--prompt", "Who are you?")
    assert "has no config.json; the repository does not have it" in line


# -- torrents ----------------------------------------------------------------------------------------------------


def changed(change: Callable[[Any, Any], object]) -> bytes:
    top = lt.bdecode(torrent_of(SMALL))
    change(top, top[b"info"])
    return bencode.encode(top)


def renamed(new: bytes) -> bytes:
    """The torrent with config.json renamed everywhere in it."""

    def change(_top: Any, info: Any) -> None:
        info[b"file tree"][new] = info[b"file tree"].pop(b"config.json")
        next(f for f in info[b"p2pmodel"][b"files"] if f[b"path"] == b"config.json")[b"path"] = new

    return changed(change)


def repeated(_top: Any, info: Any) -> None:
    info[b"p2pmodel"][b"files"].append(info[b"p2pmodel"][b"files"][0])


def resized(_top: Any, info: Any) -> None:
    info[b"p2pmodel"][b"files"][1][b"size"] += 1


BAD_TORRENTS = {
    "cut off": (torrent_of(SMALL)[:1000], "it is cut off (the data ends at byte 1000"),
    "empty": (b"", "it is cut off (the data ends at byte 0"),
    "a web page": (b"<html></html>", "it is not canonical bencode"),
    "v1 only": (torrent_of(SMALL, "v1"), "this .torrent is v1 only"),
    "foreign": (changed(lambda _top, info: info.pop(b"p2pmodel")), "was not made by p2pmodel"),
    "climbing": (renamed(b".."), "the path '..' is not safe"),
    "absolute": (renamed(b"/etc/passwd"), "the path '/etc/passwd' is not safe"),
    "over-long": (renamed(b"x" * 300), "is not safe"),
    "twice": (changed(repeated), "occurs twice"),
    "contradicting": (changed(resized), "contradict"),
}


@pytest.mark.parametrize("kind", BAD_TORRENTS)
def test_torrents_that_cannot_be_used_exit_with_5(cli: CommandLine, kind: str):
    data, words = BAD_TORRENTS[kind]
    (cli.home / "bad.torrent").write_bytes(data)
    for args in (("torrent", "show", "bad.torrent"), (*FETCH, "bad.torrent")):
        line = cli.refuses(5, *args)
        assert words in line
        assert "; " in line, "the message has no hint"
    assert not list(cli.home.rglob("models--*"))


def test_torrent_files_that_are_not_there(cli: CommandLine):
    (cli.home / "folder.torrent").mkdir()
    for verb in (("torrent", "show"), FETCH):
        assert "there is no file none.torrent" in cli.refuses(3, *verb, "none.torrent")
        assert "folder.torrent cannot be read: Is a directory" in cli.refuses(2, *verb, "folder.torrent")


def test_torrent_urls_that_lead_nowhere(cli: CommandLine):
    pages = {
        "/secret/page.torrent": Page(body=b"<html></html>", content_type="text/html"),
        "/secret/busy.torrent": Page(503),
        "/secret/junk.torrent": Page(body=b"junk"),
        "/secret/slow.torrent": Page(hangs=True),
    }
    with in_thread(web_answers(pages)) as base:
        where = f"{base}/.../"
        for name, code, words in (
            ("none", 3, f"{where}none.torrent does not exist; check the address"),
            ("page", 5, f"{where}page.torrent is a web page; give the address of the .torrent itself"),
            ("busy", 6, f"{where}busy.torrent answered 503"),
            ("junk", 5, "it is not canonical bencode"),
            ("slow", 6, f"{where}slow.torrent cannot be downloaded: timed out"),
        ):
            line = cli.refuses(
                code, *FETCH, f"{base}/secret/{name}.torrent?token=x", P2PMODEL_ORIGIN_READ_TIMEOUT="0.3"
            )
            assert words in line
            assert "secret" not in line
            assert "token" not in line
    assert "connection refused; check the address" in cli.refuses(6, *FETCH, f"{UNREACHABLE}/x.torrent")
    assert "its name does not resolve (DNS)" in cli.refuses(6, *FETCH, "http://no-such-host.invalid/x.torrent")


def test_a_magnet_without_peers(cli: CommandLine):
    magnet = f"magnet:?xt=urn:btmh:1220{HASH}&xs={UNREACHABLE}/x.torrent&tr={UNREACHABLE}/announce"
    line = cli.refuses(6, *FETCH, magnet, P2PMODEL_SWARM_MAGNET_TIMEOUT="0.5")
    assert "no peer sent the magnet's torrent within 0.5 seconds (its metadata did not arrive)" in line
    assert "check that a seeder is running" in line


@pytest.mark.needs("openssl")
def test_a_clock_that_is_wrong(nodes: Nodes, tmp_path: Path):
    cert, key = certificate(tmp_path, "20990101000000Z", "20991231000000Z")
    asked = {"HF_HUB_CACHE": str(tmp_path / "hub"), "SSL_CERT_FILE": str(cert)}
    with tls_server(cert, key) as url:
        for args in (
            ("org/model", "--endpoint", url),
            (f"{url}/x.torrent",),
            ("org/model", "--endpoint", UNREACHABLE, "--coordinator", url),
        ):
            done = nodes.run("node", "fetch", *args, **asked)
            assert (done.code, done.out) == (6, ""), done
            assert "certificate not yet valid: check the clock" in done.err


# -- this machine ------------------------------------------------------------------------------------------------


def test_ports_that_are_taken_exit_with_7(cli: CommandLine):
    (cli.home / "some").mkdir()
    (cli.home / "some/file.txt").write_text("content")
    (cli.home / "t.torrent").write_bytes(torrent_of(SMALL))
    seed = ("seed", "some", "--as", "org/some", "-q")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        for args in (
            ("mirror", "serve", "--listen", where),
            ("coordinator", "--listen", where),
            (*seed, "--listen", where),
            (*seed, "--listen", "127.0.0.1:0", "--swarm-listen", where),
            (*FETCH, "t.torrent", "--swarm-listen", where),
        ):
            line = cli.refuses(7, *args)
            assert where in line
            assert "in use" in line
            assert "port" in line
    assert not list(cli.hub.rglob("snapshots")), "the port was found taken after the work, not before"


def test_addresses_of_other_machines_exit_with_7(cli: CommandLine):
    (cli.home / "t.torrent").write_bytes(torrent_of(SMALL))
    for args in (
        ("mirror", "serve", "--insecure-public", "--listen", "192.0.2.1:0"),
        (*FETCH, "t.torrent", "--swarm-listen", "192.0.2.1:0"),
    ):
        assert "192.0.2.1" in cli.refuses(7, *args)


def test_a_cache_that_cannot_be_written_to(cli: CommandLine):
    (cli.home / "some").mkdir()
    (cli.home / "some/file.txt").write_text("content")
    (cli.home / "t.torrent").write_bytes(torrent_of(SMALL))
    cli.hub.write_text("a file in its place")
    for args in (
        (*FETCH, "org/model"),
        (*FETCH, "t.torrent"),
        ("seed", "-q", "org/model", "--listen", "127.0.0.1:0"),
        ("seed", "-q", "some", "--as", "org/some", "--once"),
        ("import", "-q", "some", "org/some"),
        ("mirror", "serve", "-q", "--listen", "127.0.0.1:0"),
    ):
        assert f"{cli.hub} is not a directory; remove it" in cli.refuses(7, *args)
    assert f"{cli.hub} is not a directory" in cli.refuses(
        7, "coordinator", "--listen", "127.0.0.1:0", "--state-dir", cli.hub
    )
    assert cli.hub.read_text() == "a file in its place"
