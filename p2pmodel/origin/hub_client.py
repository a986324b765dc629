"""Configuration of huggingface_hub's HTTP client: the certificate authorities of each endpoint.

The library has one client for the process, so a setting here stays for its lifetime. A `ca_file` applies to the host
and port of its own endpoint only.
"""

import importlib
import threading
from pathlib import Path
from typing import Any

from huggingface_hub import get_session, set_client_factory
from yarl import URL

from p2pmodel.origin.requests import proxy_for
from p2pmodel.tls import context_with

_trusted: dict[URL, Path] = {}
_lock = threading.Lock()


def trust(endpoint: str, ca_file: Path) -> None:
    """Accept certificates of `endpoint` that are signed by the authorities in `ca_file`. Raises InvalidInput."""
    context_with(ca_file)
    origin = URL(endpoint).origin()
    with _lock:
        if _trusted.get(origin) != ca_file:
            _trusted[origin] = ca_file
            plain = get_session()
            hooks, module = plain.event_hooks, importlib.import_module(type(plain).__module__.partition(".")[0])
            set_client_factory(lambda: _client(module, hooks))


def _client(module: Any, hooks: Any) -> Any:
    mounts = {}
    for origin, ca_file in _trusted.items():
        pattern = f"{origin.scheme}://{origin.raw_host}" + ("" if origin.is_default_port() else f":{origin.port}")
        mounts[pattern] = module.HTTPTransport(verify=context_with(ca_file), proxy=proxy_for(origin))
    return module.Client(event_hooks=hooks, follow_redirects=True, timeout=None, mounts=mounts)
