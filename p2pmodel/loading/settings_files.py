"""Which files of a snapshot are the settings of its model. Pure."""

from pathlib import PurePosixPath

from p2pmodel.core.content.layout import MIB

_KINDS = frozenset({".json", ".jinja", ".txt", ".model", ".tiktoken", ".vocab"})
LARGEST = 64 * MIB


def is_settings(path: str, size: int) -> bool:
    """Whether transformers may read this file before the weights: settings, a tokenizer, a chat template."""
    return PurePosixPath(path).suffix in _KINDS and size <= LARGEST
