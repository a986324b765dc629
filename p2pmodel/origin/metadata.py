"""A snapshot's manifest from one hub endpoint, through huggingface_hub. Blocking; call it in a thread.

huggingface_hub has process-wide state (one HTTP client, one logger, telemetry by constant). Its log and its telemetry
are switched off here; the rest is left as it is.
"""

import importlib
import logging
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from huggingface_hub import HfApi, constants, get_session, set_client_factory
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import logging as hub_logging
from yarl import URL

from p2pmodel import __version__
from p2pmodel.config.settings import MirrorSettings, OriginSettings
from p2pmodel.core.manifest import Manifest, ManifestFile, lfs_pointer_oid
from p2pmodel.core.names import Reference, printable
from p2pmodel.errors import AccessDenied, GatedRepo, IntegrityError, RepoNotFound, RevisionNotFound, Unavailable
from p2pmodel.origin.clock import Clock
from p2pmodel.origin.failures import Failed, Refused, reason_of, status_failure
from p2pmodel.origin.requests import proxy_for
from p2pmodel.tls import context_with

_trusted: dict[URL, Path] = {}
_lock = threading.Lock()


def trust(endpoint: str, ca_file: Path) -> None:
    """Accept certificates of `endpoint` that are signed by the authorities in `ca_file`. Raises InvalidInput.

    huggingface_hub has one HTTP client for the process, so this holds for its lifetime. It applies to the host and port
    of `endpoint` only.
    """
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


# httpx or httpx2, whichever this huggingface_hub was built on.
_TRANSPORT_ERROR: type[Exception] = HfHubHTTPError.__bases__[0]
# Errors of the library for a response that is no hub's JSON: an HTML page, a list, a missing key.
_NOT_A_HUB = (ValueError, TypeError, KeyError, AttributeError)


def fetch_manifest(mirror: MirrorSettings, ref: Reference, settings: OriginSettings) -> Manifest:
    """The manifest of `ref`: GET {endpoint}/api/models/{repo}/revision/{revision}?blobs=true, and the tree if sizes
    are missing there. Raises Failed if a retry may help, else Refused."""
    hub_logging.set_verbosity(logging.CRITICAL)
    constants.HF_HUB_DISABLE_TELEMETRY = True
    if mirror.ca_file:
        trust(mirror.endpoint, mirror.ca_file)
    token = mirror.token.get_secret_value() if mirror.token else None
    try:
        return _ask(mirror.endpoint, token, ref, settings)
    except OfflineModeIsEnabled:
        raise Refused("huggingface_hub is in offline mode (HF_HUB_OFFLINE)", Unavailable) from None
    except HfHubHTTPError as error:
        raise _from_status(error, has_token=token is not None) from None
    except IntegrityError as error:
        raise Refused(str(error), IntegrityError) from None
    except (_TRANSPORT_ERROR, OSError) as error:
        raise Failed(reason_of(error)) from None
    except _NOT_A_HUB:
        raise Refused("its response is not a hub's (an error page?)", Unavailable) from None


def _ask(endpoint: str, token: str | None, ref: Reference, settings: OriginSettings) -> Manifest:
    api = HfApi(endpoint=endpoint, token=token or False, library_name="p2pmodel", library_version=__version__)
    # (connect, read, write, pool): the client accepts it, although the signature has one number.
    limits = (settings.connect_timeout, settings.read_timeout, settings.read_timeout, settings.connect_timeout)
    timeout = cast("float", limits)
    info = api.model_info(str(ref.repo), revision=ref.revision, files_metadata=True, timeout=timeout)
    if ref.pinned and info.sha != ref.revision:
        raise IntegrityError(f"it answers with commit {printable(str(info.sha), 40)} instead")
    siblings = info.siblings or []
    if not siblings or any(s.size is None for s in siblings):
        tree = api.list_repo_tree(str(ref.repo), recursive=True, revision=info.sha)
        files = _from_tree(entry for entry in tree if isinstance(entry, RepoFile))
    else:
        files = tuple(_file(s.rfilename, s.size, s.blob_id, s.lfs) for s in siblings)
    return Manifest(ref.repo, info.sha or "", files, private=bool(info.private or info.gated))


def _from_tree(entries: Iterable[RepoFile]) -> tuple[ManifestFile, ...]:
    return tuple(_file(e.path, e.size, e.blob_id, e.lfs) for e in entries)


def _file(path: str, size: int | None, blob_id: str | None, lfs: Any) -> ManifestFile:
    if size is None:
        raise IntegrityError(f"it gives no size of {printable(path)}")
    sha256 = lfs.sha256 if lfs else None
    return ManifestFile(path, size, blob_id or (lfs_pointer_oid(sha256, size) if sha256 else ""), sha256)


def _from_status(error: HfHubHTTPError, *, has_token: bool) -> Failed | Refused:
    status: int = error.response.status_code
    if isinstance(error, RevisionNotFoundError):
        return Refused("it has no such revision", RevisionNotFound)
    if isinstance(error, GatedRepoError) or status in (401, 403):
        return _denied(error, status, has_token=has_token)
    if status in (404, 410):
        return Refused("it has no such repository", RepoNotFound)
    failure = status_failure(status, error.response.headers, Clock().date())
    return failure if isinstance(failure, Failed) else Refused(failure.reason, Unavailable)


def _denied(error: HfHubHTTPError, status: int, *, has_token: bool) -> Refused:
    if isinstance(error, GatedRepoError):
        return Refused(f"gated, and {'its token is not admitted' if has_token else 'no token was given'}", GatedRepo)
    if has_token:
        return Refused(f"wrong token (HTTP {status})", AccessDenied)
    if error.response.headers.get("X-Error-Code") == "RepoNotFound":
        # Without a token the hub does not distinguish a private repository from a missing one.
        return Refused("no such repository, or a private one and no token was given", RepoNotFound)
    return Refused(f"it requires a token (HTTP {status})", AccessDenied)
