"""Tokens of a real issuer, npm's oidc-provider: which of them a server of p2pmodel admits.

The issuer gives tokens by client credentials, and changes its keys. Prints a line for each check; exit code 1 if one
fails. `python -m scripts.directories.oidc_provider FOLDER`: the folder has node_modules with oidc-provider.
"""

import asyncio
import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey

from p2pmodel.config.sections.trust import OidcSettings
from p2pmodel.core.network.proxies import DIRECT
from p2pmodel.core.network.rights import RequestCredentials
from p2pmodel.errors import P2PModelError
from p2pmodel.trust.access.oidc import LEEWAY, RETRY_AFTER, OidcIssuer
from p2pmodel.trust.access.policy import Subject

CLIENT = base64.b64encode(b"trainer:secret-of-the-trainer").decode()
AUDIENCE = "p2pmodel"
START_SECONDS = 60.0
ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA", "Ed25519")
TRAINER = Subject("oidc", "trainer", frozenset({"ml", "research"}))


class Clock:
    """Times at which keys are fetched, put forward by the checks."""

    def __init__(self) -> None:
        self.now = time.monotonic()

    def __call__(self) -> float:
        return self.now


class Checks:
    """What was checked."""

    def __init__(self) -> None:
        self.failed = 0

    async def same(self, name: str, work: Awaitable[Any], wanted: Any) -> None:
        """That `work` returns `wanted`, or raises an error with that text."""
        try:
            got = await work
        except P2PModelError as error:
            got = error.what
        ok = wanted in got if isinstance(wanted, str) and isinstance(got, str) else got == wanted
        self.failed += not ok
        print(f"{'ok' if ok else 'FAILED'}: {name}" + (f": {got}" if not ok or isinstance(got, str) else ""))


class Issuer:
    """One oidc-provider on a port that it keeps when it starts again."""

    def __init__(self, folder: Path, keys: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder, self._keys = folder, keys

    @contextmanager
    def running(self, keys: KeySet) -> Iterator[None]:
        """It runs with these keys while the context lasts."""
        self._keys.touch(0o600)
        self._keys.write_text(json.dumps(keys.as_dict(private=True)))
        command = ["node", str(self._folder / "issuer.mjs"), str(self.port), str(self._keys)]
        log = self._keys.with_suffix(".log")
        with log.open("ab") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
            until = time.monotonic() + START_SECONDS
            try:
                while True:
                    with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0):
                        break
                    assert process.poll() is None, log.read_text()
                    assert time.monotonic() < until, log.read_text()
                    time.sleep(0.1)
                yield
            finally:
                process.kill()

    def token(self, algorithm: str, *, audience: str = AUDIENCE, seconds: int = 600) -> RequestCredentials:
        """A token by client credentials."""
        resource = f"https://p2pmodel.test/{audience}/{algorithm}/{seconds}"
        form = urllib.parse.urlencode({"grant_type": "client_credentials", "resource": resource, "scope": "read"})
        request = urllib.request.Request(
            f"{self.url}/token", form.encode(), {"Authorization": f"Basic {CLIENT}"}, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return RequestCredentials(f"Bearer {json.load(answer)['access_token']}")
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{algorithm}: {error.read().decode()}") from None


def new_keys() -> KeySet:
    """A key for each algorithm."""
    return KeySet([key(kind, size) for kind, size in ((RSAKey, 2048), (ECKey, "P-256"), (OKPKey, "Ed25519"))])


def key(kind: Any, size: Any) -> Any:
    """A key for signatures with an id of its own."""
    made = kind.generate_key(size, parameters={"use": "sig"}, auto_kid=True)
    made.ensure_kid()
    return made


def changed(token: RequestCredentials, header: dict[str, Any], signature: str = "") -> RequestCredentials:
    """The token with another header and signature."""
    claims = token.bearer.split(".")[1]
    begin = base64.urlsafe_b64encode(json.dumps(header).encode()).decode().rstrip("=")
    return RequestCredentials(f"Bearer {begin}.{claims}.{signature}")


def accepting(issuer: Issuer, clock: Clock, **more: Any) -> OidcIssuer:
    """What a server makes of its settings."""
    plain = {"issuer": issuer.url, "audience": AUDIENCE, "algorithms": ALGORITHMS}
    return OidcIssuer(OidcSettings.model_validate(plain | more), DIRECT, clock=clock)


async def check_claims(checks: Checks, issuer: Issuer, at: OidcIssuer, clock: Clock) -> None:
    """Algorithms, audience, issuer, expiry and forged signatures."""
    for algorithm in ALGORITHMS:
        await checks.same(f"a token signed with {algorithm} is admitted", at.subject(issuer.token(algorithm)), TRAINER)
    token = issuer.token("ES256")
    strict = accepting(issuer, clock, algorithms=("RS256",))
    await checks.same("an algorithm that is not listed is refused", strict.subject(token), "the token is not valid")
    other = issuer.token("ES256", audience="another-service")
    await checks.same("a token for another service is refused", at.subject(other), "the token is not valid")
    header = json.loads(base64.urlsafe_b64decode(token.bearer.split(".")[0] + "=="))
    for forged in ("none", "None", "HS256"):
        refused = at.subject(changed(token, header | {"alg": forged}))
        await checks.same(f"the algorithm {forged} is refused", refused, "the token is not valid")
    strange = at.subject(changed(token, header, issuer.token("ES256", seconds=601).bearer.split(".")[2]))
    await checks.same("a signature of another token is refused", strange, "the token is not valid")
    short = issuer.token("ES256", seconds=1)
    await checks.same("a short token is admitted", at.subject(short), TRAINER)
    await asyncio.sleep(LEEWAY + 3)
    await checks.same(f"and refused {LEEWAY} s after its end", at.subject(short), "the token is not valid: ")


async def check_other_issuer(checks: Checks, folder: Path, work: Path, at: OidcIssuer) -> None:
    """A token of an issuer that is not in the settings."""
    other = Issuer(folder, work / "other.json")
    with other.running(new_keys()):
        refused = at.subject(other.token("ES256"))
        await checks.same("a token of another issuer is refused", refused, "a key that the issuer does not have")


async def check_rotation(checks: Checks, issuer: Issuer, at: OidcIssuer, clock: Clock) -> None:
    """New keys, with and without the old ones beside them."""
    old, fresh = new_keys(), new_keys()
    clock.now += RETRY_AFTER
    with issuer.running(old):
        before = issuer.token("ES256")
        await checks.same("an unknown key id fetches the keys", at.subject(before), TRAINER)
    with issuer.running(KeySet([*fresh.keys, *old.keys])):
        after = issuer.token("ES256")
        wanted = "a key that the issuer does not have"
        await checks.same("the keys are not fetched again at once", at.subject(after), wanted)
        clock.now += RETRY_AFTER
        await checks.same("a new key is fetched", at.subject(after), TRAINER)
        await checks.same("the old key beside it still counts", at.subject(before), TRAINER)
    with issuer.running(fresh):
        await checks.same("it counts until the keys are fetched again", at.subject(before), TRAINER)
        clock.now += 301.0
        await checks.same("a key that was taken away is refused", at.subject(before), wanted)
        await checks.same("its successor is admitted", at.subject(after), TRAINER)
    await checks.same("without the issuer the kept keys count", at.subject(after), TRAINER)
    clock.now += 301.0
    await checks.same("until they are too old", at.subject(after), "does not answer")


async def check_server(checks: Checks, issuer: Issuer, work: Path) -> None:
    """A coordinator with a rule for a group."""
    settings = work / "p2pmodel.toml"
    settings.write_text(
        f'[oidc]\nissuer = "{issuer.url}"\naudience = "{AUDIENCE}"\n[[access.rules]]\nsubjects = ["group:research"]\n'
    )
    command = [sys.executable, "-m", "p2pmodel", "coordinator", "--listen", "127.0.0.1:0", "--json", "-q"]
    environment = os.environ | {"P2PMODEL_CONFIG": str(settings), "P2PMODEL_STATE_DIR": str(work / "state")}
    server = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=environment)
    try:
        assert server.stdout is not None
        url = json.loads(await server.stdout.readline())["url"]
        for name, presented, wanted in (
            ("a coordinator admits a token of the issuer", issuer.token("ES256"), 200),
            ("and none without a signature", changed(issuer.token("ES256"), {"alg": "none"}), 401),
            ("and none for another service", issuer.token("ES256", audience="other"), 401),
        ):
            await checks.same(name, asyncio.to_thread(status, f"{url}/catalog", presented), wanted)
    finally:
        server.terminate()
        await server.wait()


def status(url: str, presented: RequestCredentials) -> int:
    """The HTTP status of a request."""
    headers = {"Authorization": presented.authorization} if presented.authorization else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


async def run(folder: Path, work: Path) -> int:
    """All checks; the exit code."""
    checks, clock = Checks(), Clock()
    issuer = Issuer(folder, work / "keys.json")
    at = accepting(issuer, clock)
    with issuer.running(new_keys()):
        await check_claims(checks, issuer, at, clock)
        await check_server(checks, issuer, work)
        await check_other_issuer(checks, folder, work, at)
    await check_rotation(checks, issuer, at, clock)
    print(f"{checks.failed} failed")
    return int(checks.failed > 0)


def main() -> int:
    """Run beside the modules of npm."""
    if len(sys.argv) != 2:
        print("give the folder with node_modules, or run scripts/directories/oidc", file=sys.stderr)
        return 2
    folder = Path(sys.argv[1])
    shutil.copy(Path(__file__).with_name("issuer.mjs"), folder)
    with tempfile.TemporaryDirectory() as work:
        return asyncio.run(run(folder, Path(work)))


if __name__ == "__main__":
    sys.exit(main())
