"""Messages about an assembly between a peer and its coordinator, as JSON text.

A peer first sends the manifest, in parts; its hash is the assembly's digest. Then it sends its `Demand`, as
leaseholders do, with the roots of its pieces that it has not sent on this connection. The coordinator sends
`CoordinatorMessage`s.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from p2pmodel.coordinator.leases.demand import Demand
from p2pmodel.coordinator.leases.messages import demand_of, object_of, plain_demand
from p2pmodel.coordinator.rollout.nodes import NodeReport
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.merkle import HASH
from p2pmodel.errors import IntegrityError, InvalidInput

MAX_MANIFEST = 16 << 20
"""Bytes of the longest manifest: 100,000 files."""
PART = 256 << 10
"""Characters of the manifest in one message. The first shorter message, which may be empty, is the last one."""
MAX_ROOTS = 8192
"""Roots in one message: 350 kB of base64."""


def assembly_path(digest: str) -> str:
    """Path of an assembly below a coordinator's base URL."""
    return f"/assemblies/{digest}"


def manifest_text(manifest: Manifest) -> str:
    """The canonical JSON text of `manifest`."""
    return json.dumps(manifest.to_dict(), sort_keys=True, separators=(",", ":"))


def in_parts(text: str) -> list[str]:
    """The canonical text of a manifest as the messages that a peer sends."""
    return [text[start : start + PART] for start in range(0, len(text) + 1, PART)]


def parse_manifest(text: str) -> Manifest:
    """The reverse of `manifest_text`. Raises InvalidInput."""
    try:
        return Manifest.from_dict(object_of(text))
    except IntegrityError as error:
        raise InvalidInput(error.what) from None


def assembly_digest(text: str) -> str:
    """64 hex digits that identify the assembly of the manifest with the canonical text `text`."""
    return hashlib.sha256(text.encode()).hexdigest()


def update_text(demand: Demand, piece_count: int, roots: Mapping[int, bytes], report: NodeReport | None = None) -> str:
    """`demand` and `roots`, by piece, as a message; `report`: the state of the node, for roll-outs."""
    plain = plain_demand(demand, piece_count, report) | {"roots": _runs(roots)}
    return json.dumps(plain, separators=(",", ":"))


def parse_update(text: str) -> tuple[Demand, dict[int, bytes]]:
    """The reverse of `update_text`. Raises InvalidInput. A truncated root is returned: `Assembly` ignores it."""
    return update_of(object_of(text))


def update_of(plain: dict[str, Any]) -> tuple[Demand, dict[int, bytes]]:
    """As `parse_update`, from the object in the message."""
    return demand_of(plain), _roots(plain.get("roots", {}))


def _runs(roots: Mapping[int, bytes]) -> dict[str, str]:
    """Roots of consecutive pieces joined, by the first piece."""
    runs: dict[int, bytearray] = {}
    first = last = -2
    for piece in sorted(roots):
        if piece != last + 1:
            first = piece
            runs[first] = bytearray()
        runs[first] += roots[piece]
        last = piece
    return {str(piece): base64.b64encode(run).decode() for piece, run in runs.items()}


def _roots(plain: Any) -> dict[int, bytes]:
    try:
        found: dict[int, bytes] = {}
        for first, text in plain.items():
            run = base64.b64decode(text, validate=True)
            for number in range(-(-len(run) // HASH)):
                found[int(first) + number] = run[number * HASH : (number + 1) * HASH]
    except (AttributeError, TypeError, ValueError) as error:
        raise InvalidInput(f"the message holds no roots of pieces: {error!r}") from None
    return found
