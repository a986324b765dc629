"""Settings: file < environment < flags, tokens only where they belong, one clear line for what is wrong."""

import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from p2pmodel.config.mirrors import hub_endpoints, keep_one_endpoint
from p2pmodel.config.sections.mirrors import OFFICIAL_ENDPOINT
from p2pmodel.config.settings import Settings
from p2pmodel.config.sources import load_settings, notices, settings_values
from p2pmodel.core.content.names import RepoId
from p2pmodel.errors import InvalidInput


def load(tmp_path: Path, toml: str = "", flags: dict[str, object] | None = None, **env: str):
    config = tmp_path / "p2pmodel.toml"
    config.write_text(toml)
    with patch.dict(os.environ, {"HOME": str(tmp_path)} | env, clear=True):
        return load_settings(config=config, flags=flags)


MIRRORS = """
[[mirrors]]
name = "far"
endpoint = "https://far.example/hf/"
priority = 2
[[mirrors]]
name = "near"
endpoint = "http://near.example:8080"
priority = 1
token_env = "P2PMODEL_NEAR_TOKEN"
"""


def test_defaults_are_the_official_hub_and_the_hubs_cache(tmp_path: Path):
    settings = load(tmp_path)
    assert [m.endpoint for m in settings.mirrors] == [OFFICIAL_ENDPOINT]
    assert settings.cache_dir == tmp_path / ".cache/huggingface/hub"
    assert settings.swarm.listen is None


def test_file_then_environment_then_flags(tmp_path: Path):
    toml = '[swarm]\nlisten = "127.0.0.5:1"\n[origin]\npart_size = 70000\n'
    assert load(tmp_path, toml).swarm.listen == "127.0.0.5:1"
    env = {"P2PMODEL_SWARM_LISTEN": "127.0.0.6:1", "HF_HUB_CACHE": "/x"}
    assert load(tmp_path, toml, **env).swarm.listen == "127.0.0.6:1"
    flagged = load(tmp_path, toml, {"swarm.listen": "127.0.0.7:1", "cache_dir": None}, **env)
    assert (flagged.swarm.listen, flagged.cache_dir, flagged.origin.part_size) == ("127.0.0.7:1", Path("/x"), 70000)


def test_mirrors_are_ordered_by_priority(tmp_path: Path):
    assert [m.name for m in load(tmp_path, MIRRORS).mirrors] == ["near", "far"]


def test_a_mirrors_own_limits_and_authority_stay_with_it(tmp_path: Path):
    extra = "max_bytes_per_second = 5000000\nca_file = '/etc/our-ca.pem'\nfallback = true\n"
    near, far = load(tmp_path, MIRRORS + extra, HF_MIRROR_PRIORITY="near,far").mirrors
    assert (near.max_bytes_per_second, near.ca_file, near.fallback) == (5_000_000, Path("/etc/our-ca.pem"), True)
    assert (far.max_bytes_per_second, far.ca_file, far.fallback) == (None, None, False)


@pytest.mark.parametrize(
    ("toml", "env", "folder"),
    [
        ("", {}, "{home}/.local/state/p2pmodel"),
        ("", {"XDG_STATE_HOME": "/xdg"}, "/xdg/p2pmodel"),
        ("", {"XDG_STATE_HOME": "relative"}, "{home}/.local/state/p2pmodel"),
        ("state_dir = '/file'", {"XDG_STATE_HOME": "/xdg"}, "/file"),
        ("state_dir = '/file'", {"P2PMODEL_STATE_DIR": "/env"}, "/env"),
    ],
)
def test_where_state_is_stored(tmp_path: Path, toml: str, env: dict[str, str], folder: str):
    settings = load(tmp_path, toml, **env)
    assert settings.state_dir == settings.origin.state_dir == Path(folder.format(home=tmp_path))


def test_mirror_priority_orders_by_name_or_url(tmp_path: Path):
    found = load(tmp_path, MIRRORS, HF_MIRROR_PRIORITY="far,https://third.example, near").mirrors
    assert [m.name for m in found] == ["far", "third.example", "near"]


def test_an_unknown_mirror_name_is_named(tmp_path: Path):
    with pytest.raises(InvalidInput, match=r"'nowhere' is neither a URL nor the name of one \(far, near, official, "):
        load(tmp_path, MIRRORS, HF_MIRROR_PRIORITY="nowhere")


def test_endpoints_of_flags_replace_the_list_and_keep_the_order(tmp_path: Path):
    found = load(tmp_path, MIRRORS, {"endpoints": ("http://a", "http://near.example:8080", "http://b")}).mirrors
    assert [m.endpoint for m in found] == ["http://a", "http://near.example:8080", "http://b"]


def test_tokens_go_only_to_their_mirrors(tmp_path: Path):
    env = {"HF_TOKEN": "hub-secret", "P2PMODEL_NEAR_TOKEN": "near-secret"}
    near, far = load(tmp_path, MIRRORS, **env).mirrors
    assert near.token
    assert near.token.get_secret_value() == "near-secret"
    assert far.token is None
    alone = load(tmp_path, HF_ENDPOINT="http://mine:1", HF_TOKEN="hub-secret").mirrors[0]
    assert alone.token
    assert alone.token.get_secret_value() == "hub-secret"
    assert "hub-secret" not in repr(alone)


def test_the_hubs_token_file_is_read(tmp_path: Path):
    (tmp_path / "token").write_text("from-file\n")
    token = load(tmp_path, HF_HOME=str(tmp_path)).mirrors[0].token
    assert token
    assert token.get_secret_value() == "from-file"
    assert load(tmp_path, HF_HOME=str(tmp_path), HF_HUB_DISABLE_IMPLICIT_TOKEN="1").mirrors[0].token is None
    assert load(tmp_path, HF_HOME="/proc/1/no").mirrors[0].token is None
    (tmp_path / "token").chmod(0o666)
    with pytest.raises(InvalidInput, match=r"others can change the token file .*HF_HUB_DISABLE_IMPLICIT_TOKEN=1"):
        load(tmp_path, HF_HOME=str(tmp_path))


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[swarm]\nlisen = 1", r"setting swarm\.lisen"),
        ("[origin]\npart_size = 'big'", r"setting origin\.part_size"),
        ("mirrors = 3", r"setting mirrors"),
        ("swarm = 3", r"setting swarm: expected a table"),
        ("color = 3", r"setting color: there is no such setting \(in /.*/p2pmodel.toml\); see"),
        ("[[mirrors]]\nname='x'\nendpoint='http://x'\ntoken-env='x'", r"mirrors\.0\.token-env: .*, token_env is the n"),
        ("[[mirrors]]\nname='x'", r"setting mirrors\.0\.endpoint: it is missing"),
        ("[swarm]\nlisten = 'here'", r"setting swarm\.listen or P2PMODEL_SWARM_LISTEN: 'here' is not an address"),
        ("[[mirrors]]\nname='x'\nendpoint='ftp://x'", r"setting mirrors\.0\.endpoint.*not an http"),
        ("coordinators = ['nope']", r"setting coordinators.*'nope'"),
        ("= broken", r"cannot be read"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(tmp_path: Path, toml: str, message: str):
    with pytest.raises(InvalidInput, match=message) as caught:
        load(tmp_path, toml)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("https://a.example,b.example", r"HF_ENDPOINT: 'b\.example' is not an http"),
        ("hf.example", r"HF_ENDPOINT: 'hf\.example' is not an http"),
        ("https://[", r"HF_ENDPOINT: .* is not an http"),
    ],
)
def test_hf_endpoint_is_checked_even_if_others_are_used(tmp_path: Path, value: str, message: str):
    for env in ({}, {"P2PMODEL_ENDPOINTS": "http://a,http://b"}):
        with pytest.raises(InvalidInput, match=message):
            load(tmp_path, MIRRORS, HF_ENDPOINT=value, **env)


def test_hf_endpoint_may_be_a_list(tmp_path: Path):
    several = "https://a.example, https://b.example/hf"
    found = load(tmp_path, HF_ENDPOINT=several, HF_TOKEN="hub-secret").mirrors
    assert [m.endpoint for m in found] == ["https://a.example", "https://b.example/hf"]
    assert all(m.token is not None for m in found)
    assert [m.name for m in load(tmp_path, MIRRORS, HF_ENDPOINT=several).mirrors] == ["near", "far"]


def test_other_programs_get_one_endpoint_of_a_list(tmp_path: Path):
    with patch.dict(os.environ, {"HF_ENDPOINT": "https://a.example,https://b.example"}):
        keep_one_endpoint()
        assert os.environ["HF_ENDPOINT"] == "https://a.example"
        assert hub_endpoints() == ("https://a.example", "https://b.example")
        keep_one_endpoint()
        assert hub_endpoints() == ("https://a.example", "https://b.example")
        os.environ["HF_ENDPOINT"] = "https://other.example"
        assert hub_endpoints() == ("https://other.example",)


def test_a_preset_has_a_name_and_an_endpoint(tmp_path: Path):
    toml = "[[mirrors]]\npreset = 'modelscope'\n[[mirrors]]\npreset = 'official'\nname = 'hub'\npriority = 1\n"
    first, second = load(tmp_path, toml).mirrors
    assert (first.name, first.endpoint, first.kind) == ("modelscope", "https://modelscope.cn", "modelscope")
    assert (second.name, second.endpoint, second.kind) == ("hub", OFFICIAL_ENDPOINT, "hub")


def test_presets_are_names_of_endpoints(tmp_path: Path):
    found = load(tmp_path, MIRRORS, {"endpoints": ("modelscope", "far", "hf-mirror", "https://hf-mirror.com/")}).mirrors
    assert [m.name for m in found] == ["modelscope", "far", "hf-mirror", "hf-mirror"]
    assert load(tmp_path, flags={"endpoints": ("https://modelscope.cn",)}).mirrors[0].kind == "modelscope"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("preset = 'nowhere'", "no preset 'nowhere'.*official, hf-mirror, gitcode, modelscope"),
        ("preset = 'official'\nrepos = ['!']", "'!' is not a pattern of repositories"),
        ("preset = 'official'\ns3_region = 'x'", "s3_... settings go with an endpoint s3://"),
        ("name = 'a'\nendpoint = 's3://Bucket'", "'s3://Bucket' is not an address of a bucket"),
        ("name = 'a'\nendpoint = 's3://our-bucket'\nusername = 'x'", "s3:// takes no token"),
        ("name = 'a'\nendpoint = 's3://our-bucket'\ns3_endpoint = 'http://me:hush@x'", "s3_profile or s3_cred"),
    ],
)
def test_a_wrong_mirror_is_named(tmp_path: Path, lines: str, message: str):
    with pytest.raises(InvalidInput, match=message) as caught:
        load(tmp_path, f"[[mirrors]]\n{lines}")
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("env", "folder"),
    [
        ({"TRANSFORMERS_CACHE": "/t"}, "/t"),
        ({"TRANSFORMERS_CACHE": "/t", "HUGGINGFACE_HUB_CACHE": "/h"}, "/h"),
        ({"TRANSFORMERS_CACHE": "/t", "HF_HOME": "/home"}, "/home/hub"),
        ({"HUGGINGFACE_HUB_CACHE": "/h", "HF_HOME": "/home"}, "/h"),
        ({"HUGGINGFACE_HUB_CACHE": "/h", "HF_HUB_CACHE": "/new"}, "/new"),
    ],
)
def test_old_names_of_the_cache_count_where_no_new_one_is_set(tmp_path: Path, env: dict[str, str], folder: str):
    assert load(tmp_path, **env).cache_dir == Path(folder)
    lines = notices(env, Path(folder))
    assert len(lines) == len([name for name in env if not name.startswith("HF_")])
    assert all("set HF_HUB_CACHE instead" in line or "has no effect here" in line for line in lines)


def test_a_named_file_must_exist(tmp_path: Path):
    with pytest.raises(InvalidInput, match="no settings file"):
        load_settings(config=tmp_path / "none.toml")


@pytest.mark.parametrize(("value", "offline"), [("1", True), ("on", True), ("0", False), ("", False)])
def test_hub_switches_are_honoured(tmp_path: Path, value: str, offline: bool):
    settings = load(tmp_path, HF_HUB_OFFLINE=value, HF_HUB_DISABLE_PROGRESS_BARS=value)
    assert (settings.offline, settings.progress) == (offline, not offline)


def test_every_setting_has_a_variable(tmp_path: Path):
    env = {"P2PMODEL_HTTP_BODY_TIMEOUT": "7", "P2PMODEL_WATCH_MIN_SAMPLES": "9", "P2PMODEL_CACHE_DIR": "/c"}
    settings = load(tmp_path, **env, HF_HUB_CACHE="/hub")
    assert (settings.http.body_timeout, settings.watch.min_samples, settings.cache_dir) == (7, 9, Path("/c"))


def test_lists_in_variables_are_separated(tmp_path: Path):
    env = {"P2PMODEL_COORDINATORS": "http://a, http://b/", "P2PMODEL_DAEMON_UPLOAD_SCHEDULE": "08:00-09:00=1MB; 1:0"}
    assert load(tmp_path, P2PMODEL_COORDINATORS=env["P2PMODEL_COORDINATORS"]).coordinators == ("http://a", "http://b")
    with pytest.raises(InvalidInput, match=r"P2PMODEL_DAEMON_UPLOAD_SCHEDULE.*'1:0'"):
        load(tmp_path, **env)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (
            {"P2PMODEL_SWARM_LISEN": "x"},
            r"setting swarm\.lisen or P2PMODEL_SWARM_LISEN: there is no such setting, swarm\.listen is the nearest;",
        ),
        (
            {"P2PMODEL_OFLINE": "1"},
            r"^variable P2PMODEL_OFLINE: there is no such setting, P2PMODEL_OFFLINE is the nearest; see",
        ),
        ({"P2PMODEL_COLOR": "1"}, r"^variable P2PMODEL_COLOR: there is no such setting; see"),
        ({"P2PMODEL_SWARM": "{broken"}, r"^the value of P2PMODEL_SWARM is not JSON"),
        ({"P2PMODEL_LOG_LEVEL": "loud"}, r"setting log_level or P2PMODEL_LOG_LEVEL: "),
    ],
)
def test_a_wrong_variable_is_named_in_one_line(tmp_path: Path, env: dict[str, str], message: str):
    with pytest.raises(InvalidInput, match=message) as caught:
        load(tmp_path, **env)
    assert "\n" not in str(caught.value)


def test_a_zone_is_a_short_plain_name(tmp_path: Path):
    assert load(tmp_path).swarm.zone == ""
    assert load(tmp_path, P2PMODEL_SWARM_ZONE="rack-1.b_2").swarm.zone == "rack-1.b_2"
    for wrong in ("a b", "z" * 65, "x&y=1"):
        with pytest.raises(InvalidInput, match=r"swarm\.zone or P2PMODEL_SWARM_ZONE: a zone name has"):
            load(tmp_path, P2PMODEL_SWARM_ZONE=wrong)


def test_the_endpoint_may_be_off(tmp_path: Path):
    assert load(tmp_path).daemon.hub_listen is None
    assert load(tmp_path, P2PMODEL_DAEMON_HUB_LISTEN="off").daemon.hub_listen == "off"
    assert load(tmp_path, '[daemon]\nhub_listen = "[::1]:8"\n').daemon.hub_listen == "[::1]:8"
    with pytest.raises(InvalidInput, match="ADDRESS:PORT"):
        load(tmp_path, P2PMODEL_DAEMON_HUB_LISTEN="8092")


def test_the_current_folder_has_no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "p2pmodel.toml").write_text("offline = true")
    monkeypatch.chdir(tmp_path)
    with patch.dict(os.environ, {"HOME": str(tmp_path / "home")}, clear=True):
        assert not load_settings().offline
        assert load_settings(config=Path("p2pmodel.toml")).offline


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "SSH_AUTH_SOCK", "GITHUB_TOKEN", "hf_token", ""])
def test_a_file_can_name_no_variable_that_is_for_another_purpose(tmp_path: Path, name: str):
    toml = f"[[mirrors]]\nname = 'x'\nendpoint = 'http://x'\ntoken_env = '{name}'\n"
    if not name:
        assert load(tmp_path, toml).mirrors[0].token is None
        return
    with pytest.raises(InvalidInput, match=f"token_env '{name}' is not the name of a mirror's token.*P2PMODEL_"):
        load(tmp_path, toml, **{name: "secret"})


def test_a_mirrors_token_may_be_in_a_file_of_its_own(tmp_path: Path):
    secret = tmp_path / "near-token"
    secret.touch(mode=0o600)
    secret.write_text("near-secret\n")
    toml = f"[[mirrors]]\nname = 'near'\nendpoint = 'http://near'\ntoken_file = '{secret}'\n"
    token = load(tmp_path, toml).mirrors[0].token
    assert token
    assert token.get_secret_value() == "near-secret"
    secret.chmod(0o644)
    with pytest.raises(InvalidInput, match=r"others can read the token file .*; chmod 600"):
        load(tmp_path, toml)


def test_a_token_in_a_settings_file_that_others_can_read_is_refused(tmp_path: Path):
    toml = "[[mirrors]]\nname = 'x'\nendpoint = 'http://x'\ntoken = 'open'\n"
    with pytest.raises(
        InvalidInput, match=r"others can read the settings file .*which holds a secret \(token\); chmod 600"
    ):
        load(tmp_path, toml)
    (tmp_path / "p2pmodel.toml").chmod(0o600)
    assert load(tmp_path, toml).mirrors[0].token


@pytest.mark.parametrize(
    ("toml", "env"),
    [
        ("[[mirrors]]\nname = 'x'\nendpoint = 'https://me:hush@x'", {}),
        ("coordinators = ['http://me:hush@x']", {}),
        ("[client]\nserver = 'https://me:hush@x'", {}),
        ("", {"P2PMODEL_ENDPOINTS": "https://me:hush@x/hf"}),
        ("", {"HF_ENDPOINT": "https://me:hush@x"}),
        ("", {"P2PMODEL_WATCH_WEBHOOK": "https://me:hush@x/y?hush"}),
        ("coordinators = ['http://me:hush@x:port/?hush#hush']", {}),
    ],
)
def test_a_url_with_a_password_is_refused_and_not_shown(tmp_path: Path, toml: str, env: dict[str, str]):
    with pytest.raises(InvalidInput, match=r"://…@x") as caught:
        load(tmp_path, toml, **env)
    assert "hush" not in str(caught.value)


def test_a_webhook_is_a_secret(tmp_path: Path):
    url = "https://hooks.example/T000/hush?x=hush"
    settings = load(tmp_path, P2PMODEL_WATCH_WEBHOOK=url)
    assert settings.watch.webhook
    assert settings.watch.webhook.get_secret_value() == url
    assert "hush" not in repr(settings)
    with pytest.raises(InvalidInput, match=r"which holds a secret \(webhook\)") as caught:
        load(tmp_path, f"[watch]\nwebhook = '{url}'")
    assert "hush" not in str(caught.value)
    with pytest.raises(InvalidInput, match="'hooks' is not an http") as caught:
        load(tmp_path, P2PMODEL_WATCH_WEBHOOK="hooks/hush")
    assert "hush" not in str(caught.value)


def test_all_wrong_settings_are_named_at_once_with_their_place(tmp_path: Path):
    toml = "color = 3\n[swarm]\nlisten = 'here'\nzone = 'a b'\n[origin]\nread_timeout = -1\n"
    with pytest.raises(InvalidInput) as caught:
        load(tmp_path, toml, {"origin.read_timeout": -2}, P2PMODEL_SWARM_ZONE="c d", P2PMODEL_NOTHING="1")
    said = caught.value.what
    place = f" (in {tmp_path / 'p2pmodel.toml'})"
    assert "variable P2PMODEL_NOTHING: there is no such setting" in said
    assert f"setting color: there is no such setting{place}" in said
    assert f"'here' is not an address with its port{place}" in said or place in said.partition("'here'")[2]
    assert "setting origin.read_timeout or P2PMODEL_ORIGIN_READ_TIMEOUT: should be greater than 0;" in f"{said};"
    assert "'_' or '-';" in f"{said};", "the file's own zone is overridden: its place is not named"


def test_tokens_and_the_variables_of_tests_may_have_any_name(tmp_path: Path):
    load(tmp_path, P2PMODEL_NEAR_TOKEN="x", P2PMODEL_TEST_STRICT="1", P2PMODEL_DEBUG="1", p2pmodel_offline="1")


def test_many_wrong_settings_stay_one_line(tmp_path: Path):
    with pytest.raises(InvalidInput, match=r"; 40 more; see") as caught:
        load(tmp_path, "".join(f"wrong{n} = {n}\n" for n in range(50)))
    assert str(caught.value).count("there is no such setting") == 10


def test_paths_in_a_file_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    toml = "cache_dir = 'hub'\nstate_dir = '~/state'\n[client]\nca_file = 'ca.pem'\nkey = '/etc/key'\n"
    mirror = "[[mirrors]]\nname = 'x'\nendpoint = 'http://x'\nca_file = '../x.pem'\n"
    settings = load(tmp_path, toml + mirror)
    assert (settings.cache_dir, settings.state_dir) == (tmp_path / "hub", tmp_path / "state")
    assert (settings.client.ca_file, settings.client.key) == (tmp_path / "ca.pem", Path("/etc/key"))
    assert settings.mirrors[0].ca_file == tmp_path / "../x.pem"


def test_the_variable_names_no_file_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "p2pmodel.toml").write_text("offline = true")
    monkeypatch.chdir(tmp_path)
    for value, said in (
        ("p2pmodel.toml", "depends on the current folder"),
        ("/none.toml", "there is no settings file"),
    ):
        env = {"HOME": str(tmp_path), "P2PMODEL_CONFIG": value}
        with patch.dict(os.environ, env, clear=True), pytest.raises(InvalidInput, match=said):
            load_settings()
    with patch.dict(os.environ, {"HOME": str(tmp_path), "P2PMODEL_CONFIG": "~/p2pmodel.toml"}, clear=True):
        assert load_settings().offline


def test_proxies_come_from_the_variables_of_other_programs_below_the_own_ones(tmp_path: Path):
    env = {"HTTP_PROXY": "http://a:1", "ALL_PROXY": "http://me:secret@b:2", "NO_PROXY": "10.0.0.0/8, hub.corp"}
    settings = load(tmp_path, **env)
    assert "secret" not in repr(settings)
    found = [settings.origin.proxies.of(url) for url in ("http://h/", "https://h/", "http://10.1.1.1/")]
    assert [proxy and proxy.name for proxy in found] == ["a:1", "b:2", None]
    own = load(tmp_path, **env, P2PMODEL_ORIGIN_HTTP_PROXY="c:3").origin.proxies.of("http://h/")
    assert own is not None
    assert own.name == "c:3"


NEAR = "[[mirrors]]\nname = 'near'\nendpoint = 'http://near'\n"


def test_every_token_is_trimmed_and_named_where_it_is_wrong(tmp_path: Path):
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    places = {
        "the environment variable P2PMODEL_X_TOKEN": (f"{NEAR}token_env = 'P2PMODEL_X_TOKEN'", "P2PMODEL_X_TOKEN"),
        f"the token file {secret}": (f"{NEAR}token_file = '{secret}'", ""),
        "the environment variable HF_TOKEN": ("", "HF_TOKEN"),
    }
    for place, (toml, variable) in places.items():
        for text, right in (("Bearer hf_right\n", True), ("hf_ri\nght", False), ("hf_r\u00efght", False)):
            secret.write_text(text)
            env = {variable: text} if variable else {}
            if right:
                token = load(tmp_path, toml, **env).mirrors[0].token
                assert token
                assert token.get_secret_value() == "hf_right"
                continue
            with pytest.raises(InvalidInput, match=f"^{place}.* holds no token") as caught:
                load(tmp_path, toml, **env)
            assert text not in str(caught.value)


def test_an_empty_variable_of_a_mirror_is_an_error_and_an_absent_one_is_no_token(tmp_path: Path):
    toml = f"{NEAR}token_env = 'P2PMODEL_X_TOKEN'"
    with pytest.raises(InvalidInput, match=r"the environment variable P2PMODEL_X_TOKEN \(token_env\) is empty"):
        load(tmp_path, toml, P2PMODEL_X_TOKEN="")
    assert load(tmp_path, toml).mirrors[0].token is None
    assert load(tmp_path, "", HF_TOKEN="").mirrors[0].token is None, "as for the hub's own clients"


def test_the_password_of_a_mirror_with_a_user_name_may_have_spaces(tmp_path: Path):
    toml = f"{NEAR}username = 'me'\ntoken_env = 'P2PMODEL_X_TOKEN'"
    token = load(tmp_path, toml, P2PMODEL_X_TOKEN="two words\n").mirrors[0].token
    assert token
    assert token.get_secret_value() == "two words"


def test_modelscope_and_mirrors_of_other_repositories_confirm_no_commit(tmp_path: Path):
    toml = (
        "[[mirrors]]\npreset = 'modelscope'\n[[mirrors]]\npreset = 'official'\nrepos = ['!our-org/*']\n"
        "[[mirrors]]\nname = 'bucket'\nendpoint = 's3://our-models/hf'\n"
    )
    listed = {
        repo: [m.name for m in load(tmp_path, toml).mirrors if m.lists_commits_of(RepoId(repo))] for repo in REPOS
    }
    assert listed == {"our-org/a": ["bucket"], "Qwen/b": ["official", "bucket"]}
    assert [load(tmp_path, toml).webseeds(RepoId(repo)) for repo in REPOS] == [[], [OFFICIAL_ENDPOINT]]


REPOS = ("our-org/a", "Qwen/b")


def test_the_clusters_file_replaces_what_the_first_one_has(tmp_path: Path):
    cluster = tmp_path / "cluster.toml"
    cluster.write_text('[[mirrors]]\nname = "shared"\nendpoint = "http://shared"\n[swarm]\nzone = "c"\n')
    toml = MIRRORS + '[swarm]\nzone = "own"\nlisten = "127.0.0.5:1"\n'
    found = load(tmp_path, toml, P2PMODEL_CLUSTER_CONFIG=str(cluster))
    assert [mirror.name for mirror in found.mirrors] == ["shared"]
    assert (found.swarm.zone, found.swarm.listen) == ("c", "127.0.0.5:1")
    assert load(tmp_path, toml, P2PMODEL_CLUSTER_CONFIG=str(cluster), P2PMODEL_SWARM_ZONE="d").swarm.zone == "d"
    cluster.write_text("[swarm]\nzone = 3\n")
    with pytest.raises(InvalidInput, match=r"setting swarm.zone.* \(in .*/cluster.toml\)"):
        load(tmp_path, toml, P2PMODEL_CLUSTER_CONFIG=str(cluster))
    for value, text in (("cluster.toml", "depends on the current folder"), ("/none.toml", "there is no settings file")):
        with pytest.raises(InvalidInput, match=text):
            load(tmp_path, toml, P2PMODEL_CLUSTER_CONFIG=value)


FILE = """
coordinators = ["http://10.0.0.1:6969"]
[[mirrors]]
name = "own"
endpoint = "https://hub.example"
token = "very-secret-token"
[swarm]
zone = "a"
peer_timeout = 7
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HF_ENDPOINT", "HF_HUB_CACHE", "XDG_STATE_HOME", "P2PMODEL_ENDPOINTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "p2pmodel.toml"
    path.touch(0o600)
    path.write_text(FILE)
    return path


def found(file: Path | None, **flags: Any) -> dict[str, tuple[Any, str]]:
    settings = load_settings(config=file, flags=flags)
    return {each.key: (each.value, each.source) for each in settings_values(settings, file, flags)}


def test_each_layer_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P2PMODEL_SWARM_ZONE", "b")
    monkeypatch.setenv("HF_HUB_CACHE", "/cache")
    settings = found(file, log_level="error")
    assert settings["log_level"] == ("error", "command line")
    assert settings["swarm.zone"] == ("b", "P2PMODEL_SWARM_ZONE")
    assert settings["swarm.peer_timeout"] == (7.0, str(file))
    assert settings["cache_dir"] == ("/cache", "HF_HUB_CACHE")
    assert settings["swarm.trust"] == ("mirrors", "default")
    for folder, source in (("relative", "default"), ("/xdg", "XDG_STATE_HOME")):
        monkeypatch.setenv("XDG_STATE_HOME", folder)
        assert found(file)["state_dir"][1] == source


def test_variables_below_the_file_do_not_override_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://other.example")
    assert found(file)["mirrors"][1] == str(file)
    assert found(None)["mirrors"][1] == "HF_ENDPOINT"
    monkeypatch.setenv("P2PMODEL_ENDPOINTS", "own")
    assert found(file)["mirrors"][1] == "P2PMODEL_ENDPOINTS"
    assert found(file, endpoints=("own",))["mirrors"][1] == "command line"


def test_of_a_secret_only_that_it_is_set(file: Path) -> None:
    settings = found(file)
    assert settings["mirrors"][0][0]["token"] == "(set)"
    assert "very-secret-token" not in repr(settings)


def test_every_setting_is_there_once(file: Path) -> None:
    keys = list(found(file))
    sections = [name for name in Settings.model_fields if any(key.startswith(f"{name}.") for key in keys)]
    assert {key.partition(".")[0] for key in keys} == set(Settings.model_fields)
    assert len(sections) > 5


@pytest.mark.parametrize(
    "toml",
    [
        'cache_dir = ""',
        'state_dir = ""',
        'cache_dir = "a\\u0000b"',
        "[swarm]\npeer_timeout = inf",
        "[swarm]\npeer_timeout = nan",
        f"[http]\nmax_connections = {10**30}",
        '[swarm]\ndownload_limit = "999999999999999TB"',
        '[daemon]\nsocket = ""',
        '[[mirrors]]\nname = "a"\nendpoint = "http://a"\nca_file = ""',
    ],
)
def test_no_setting_has_an_empty_path_or_a_number_without_end(tmp_path: Path, toml: str):
    key = toml.rpartition("\n")[2].split(" ")[0]
    with pytest.raises(InvalidInput, match=key):
        load(tmp_path, toml)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("P2PMODEL_SWARM", "x"), ("P2PMODEL_MIRRORS", "["), ("P2PMODEL_ACCESS_RULES", "[1"), ("P2PMODEL_FOLLOW", "{")],
)
def test_a_variable_that_is_not_json_is_named(tmp_path: Path, variable: str, value: str):
    with pytest.raises(InvalidInput, match=f"the value of {variable} is not JSON"):
        load(tmp_path, **{variable: value, "P2PMODEL_SWARM_LISTEN": "127.0.0.1:1"})


def test_a_settings_file_that_is_nested_too_deeply_is_an_error(tmp_path: Path):
    with pytest.raises(InvalidInput, match="nested too deeply"):
        load(tmp_path, f"a = {'[' * 3000}")


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        ("cache_dir = 3", "a path"),
        ("follow = 3", "a list"),
        ("coordinators = 3", "a list"),
        ("node_name = 3", "a text"),
    ],
)
def test_the_type_of_a_setting_is_named_in_words(tmp_path: Path, toml: str, expected: str):
    with pytest.raises(InvalidInput, match=f"expected {expected}"):
        load(tmp_path, toml)
