"""Public mirrors by name: `preset = "hf-mirror"` in a `[[mirrors]]` table, `--mirror hf-mirror` on the command line."""

from collections.abc import Mapping, Sequence
from typing import Any

from p2pmodel.config.sections.mirrors import OFFICIAL_ENDPOINT
from p2pmodel.core.content.names import printable
from p2pmodel.errors import InvalidInput

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "official": {"endpoint": OFFICIAL_ENDPOINT},
    "hf-mirror": {"endpoint": "https://hf-mirror.com"},
    "gitcode": {"endpoint": "https://hf-api.gitcode.com"},
    "modelscope": {"endpoint": "https://modelscope.cn", "kind": "modelscope"},
}
"""What each preset sets; a table may set more, or other values."""


def with_presets(table: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tables of a settings file with what their presets set. Raises InvalidInput for an unknown preset."""
    return [_filled(mirror) if mirror.get("preset") is not None else mirror for mirror in table]


def preset(name: str) -> dict[str, Any]:
    """The table of the preset `name`."""
    return {"name": name, "preset": name, **PRESETS[name]}


def _filled(mirror: dict[str, Any]) -> dict[str, Any]:
    name = mirror["preset"]
    if not isinstance(name, str) or name not in PRESETS:
        raise InvalidInput(
            f"setting mirrors: there is no preset '{printable(str(name), 40)}'", hint=f"presets: {', '.join(PRESETS)}"
        )
    return preset(name) | mirror
