"""The systemd units in the package: their commands exist, their settings are read, all have the same hardening."""

import os
import re
from collections.abc import Callable, Sequence
from importlib.resources import files
from unittest.mock import patch

import pytest

from p2pmodel.config.sources import load_settings
from p2pmodel.errors import AccessDenied, InvalidInput

UNITS = {
    file.name: file.read_text(encoding="utf-8") for file in files("p2pmodel").joinpath("deploy", "systemd").iterdir()
}
INSTANCE = "org/model"


@pytest.fixture(params=sorted(UNITS))
def unit(request: pytest.FixtureRequest) -> str:
    return UNITS[request.param]


def environment(unit: str) -> dict[str, str]:
    return dict(re.findall(r"^Environment=(\w+)=(.*)$", unit, re.MULTILINE))


def hardening(unit: str) -> list[str]:
    return unit[unit.index("NoNewPrivileges") : unit.index("[Install]")].split()


def command(unit: str) -> list[str]:
    """The arguments of ExecStart as systemd passes them on: $WORDS splits, ${WORD} does not."""
    [line] = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    variables = environment(unit) | {"CREDENTIALS_DIRECTORY": "/run/credentials"}
    arguments = []
    for word in line.replace("%I", INSTANCE).split()[1:]:
        if word.startswith("$") and not word.startswith("${"):
            arguments += variables[word[1:]].split()
        else:
            arguments.append(re.sub(r"\$\{(\w+)\}", lambda found: variables[found[1]], word))
    return arguments


def test_each_role_has_one() -> None:
    roles = ("p2pmodel", "p2pmodel-coordinator", "p2pmodel-mirror", "p2pmodel-seed@")
    assert sorted(UNITS) == sorted(f"{role}.service" for role in roles)


def test_its_command_line_is_valid(unit: str, parsed: Callable[[Sequence[str]], dict[str, object]]) -> None:
    found = parsed(command(unit))
    assert "$" not in " ".join(map(str, found.values()))


def test_its_environment_matches_the_settings(unit: str) -> None:
    env = environment(unit)
    with patch.dict(os.environ, env | {"HOME": "/nowhere"}, clear=True):
        settings = load_settings()
    read = {
        "HF_HUB_CACHE": settings.cache_dir,
        "P2PMODEL_STATE_DIR": settings.state_dir,
        "P2PMODEL_DAEMON_SOCKET": settings.daemon.socket,
    }
    assert {name: str(read[name]) for name in env if name in read} == {k: v for k, v in env.items() if k in read}
    assert {name for name in env if name.startswith(("HF_", "P2PMODEL_"))} <= read.keys()


def test_written_files_are_in_its_state_directory(unit: str) -> None:
    [state] = re.findall(r"^StateDirectory=(.*)$", unit, re.MULTILINE)
    written = [part for part in [*environment(unit).values(), *command(unit)] if part.startswith("/var/lib/")]
    assert written
    assert all(f"{path}/".startswith(f"/var/lib/{state}/") for path in written)


def test_all_have_the_same_hardening(unit: str) -> None:
    assert hardening(unit) == hardening(UNITS["p2pmodel.service"])
    assert {"NoNewPrivileges=yes", "ProtectSystem=strict", "CapabilityBoundingSet=", "UMask=0077"} <= {*hardening(unit)}


def test_a_token_is_in_no_command_line(unit: str) -> None:
    arguments = command(unit)
    if "--token-file" in arguments:
        name = arguments[arguments.index("--token-file") + 1].rpartition("/")[2]
        assert f"LoadCredential={name}:/etc/p2pmodel/{name}" in unit
    assert not [each for each in environment(unit) if "TOKEN" in each]


def test_it_restarts_but_not_after_a_wrong_setting(unit: str) -> None:
    [codes] = re.findall(r"^RestartPreventExitStatus=(.*)$", unit, re.MULTILINE)
    assert str(InvalidInput.exit_code) in codes.split()
    assert {*codes.split()} <= {str(InvalidInput.exit_code), str(AccessDenied.exit_code)}
    assert "Restart=on-failure" in unit
    assert "StartLimitBurst=10" in unit


def test_it_gives_no_rights_to_other_users(unit: str) -> None:
    """What it writes is its own, it gains no privilege, and its secrets are no arguments."""
    assert {"UMask=0077", "NoNewPrivileges=yes", "ProtectSystem=strict", "PrivateTmp=yes"} <= set(hardening(unit))
    assert re.search(r"^User=(?!root)\w+$", unit, re.MULTILINE)
    named = [word for word in command(unit) if "token" in word and not word.startswith("--")]
    assert all(word.startswith("/run/credentials/") for word in named)
