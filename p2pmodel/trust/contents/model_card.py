"""The licence in the metadata of a model card: the YAML block at its begin, of which this reads one key. Pure."""

import re

_KEY = re.compile(r"(license|license_name)\s*:\s*(.*)")
_ITEM = re.compile(r"\s*-\s+(.+)")
_COMMENT = re.compile(r"\s+#.*$")
_MOST_LINES = 10_000


def licenses_of(card: bytes) -> tuple[str, ...]:
    """The licences that the card names, in lower case: one, several, or none. `other` comes with its name."""
    values: dict[str, list[str]] = {}
    key = ""
    for line in _metadata(card.decode("utf-8", "replace").removeprefix("\ufeff")):
        if match := _KEY.fullmatch(line):
            key = match[1]
            values[key] = _scalars(match[2])
        elif key and (item := _ITEM.fullmatch(line)):
            values[key] += _scalars(item[1])
        else:
            key = ""
    found = values.get("license", [])
    if "other" in found:
        found = [*found, *values.get("license_name", [])]
    return tuple(dict.fromkeys(found))


def _metadata(text: str) -> list[str]:
    """The lines of the block between the two `---`."""
    lines = text.splitlines()[:_MOST_LINES]
    if not lines or lines[0].rstrip() != "---":
        return []
    for end, line in enumerate(lines[1:], 1):
        if line.rstrip() == "---":
            return lines[1:end]
    return []


def _scalars(text: str) -> list[str]:
    """The plain values of a YAML scalar or of a list in brackets."""
    text = _COMMENT.sub("", text).strip()
    parts = text[1:-1].split(",") if text.startswith("[") and text.endswith("]") else [text]
    cleaned = (part.strip().strip("'\"").strip().lower() for part in parts)
    return [part for part in cleaned if part not in ("", "null", "~", "|", ">")]
