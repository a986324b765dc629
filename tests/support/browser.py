"""Headless Chromium, driven by chromedriver over the WebDriver protocol; needs only the standard library."""

import base64
import json
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.eventually import PATIENCE

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-prefers-reduced-motion",
)


class Browser:
    """One window."""

    def __init__(self, session: str) -> None:
        self._session = session

    def open(self, url: str) -> None:
        """Go to `url`, and return once it is loaded."""
        self._do("POST", "url", {"url": url})

    def run(self, script: str, *args: object) -> Any:
        """What the body of a function returns in the page."""
        return self._do("POST", "execute/sync", {"script": script, "args": list(args)})

    def text(self, selector: str) -> str:
        """The visible text of one element; "" if it is absent."""
        return str(self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector))

    def click(self, selector: str) -> None:
        """Click one element as a user does: it must be visible and uncovered."""
        self._do("POST", f"element/{self._find(selector)}/click", {})

    def write(self, selector: str, text: str) -> None:
        """Type into one element."""
        self._do("POST", f"element/{self._find(selector)}/value", {"text": text})

    def press(self, key: str) -> None:
        """Press a key, wherever the focus is."""
        actions = [{"type": kind, "value": key} for kind in ("keyDown", "keyUp")]
        self._do("POST", "actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def looks(self, *, width: int, height: int = 900, dark: bool = False, scale: float = 1.0) -> None:
        """Be a screen of that many CSS pixels."""
        phone = width < 500
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": phone}
        self._devtools("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._devtools("Emulation.setEmulatedMedia", {"features": [scheme]})

    def picture(self) -> bytes:
        """The window, as a PNG."""
        return base64.b64decode(self._do("GET", "screenshot"))

    def complaints(self) -> list[str]:
        """New log entries of the browser about the page since the last call: errors, policy violations."""
        return [str(entry["message"]) for entry in self._do("POST", "se/log", {"type": "browser"})]

    def close(self) -> None:
        """Close the window, and the browser with it."""
        _ask("DELETE", self._session)

    def _find(self, selector: str) -> str:
        found = self._do("POST", "element", {"using": "css selector", "value": selector})
        return str(next(iter(found.values())))

    def _devtools(self, command: str, parameters: dict[str, Any]) -> None:
        self._do("POST", "goog/cdp/execute", {"cmd": command, "params": parameters})

    def _do(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        return _ask(method, f"{self._session}/{path}", body)


@contextmanager
def chromium(profile: Path, *flags: str) -> Iterator[Browser]:
    """A browser with a new, empty profile and more `flags`; it and its driver end with the context."""
    driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)
    try:
        url = _address(driver)
        arguments = [*FLAGS, *flags, f"--user-data-dir={profile}"]
        wanted = {
            "goog:chromeOptions": {"args": arguments, "binary": shutil.which("chromium")},
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        made = _ask("POST", f"{url}/session", {"capabilities": {"alwaysMatch": wanted}})
        browser = Browser(f"{url}/session/{made['sessionId']}")
        try:
            yield browser
        finally:
            browser.close()
    finally:
        driver.terminate()
        driver.wait(PATIENCE)
        if driver.stdout:
            driver.stdout.close()


def _address(driver: "subprocess.Popen[str]") -> str:
    assert driver.stdout is not None
    for line in driver.stdout:
        found = re.search(r"started successfully on port (\d+)", line)
        if found:
            return f"http://127.0.0.1:{found[1]}"
    raise AssertionError("chromedriver did not start")


def _ask(method: str, url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        with error:
            said = json.load(error)["value"]
        raise AssertionError(f"{said['error']}: {said['message'].splitlines()[0]}") from None
