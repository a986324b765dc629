"""Rules for the files of a repository that the hub stores in LFS, with their sha256 as the etag."""

import fnmatch
from collections.abc import Sequence

from p2pmodel.core.layout import MIB

MAX_GIT_SIZE = 10 * MIB
"""Bytes above which the hub accepts a file only in LFS."""

HUB_PATTERNS: tuple[str, ...] = (
    *("*.7z", "*.arrow", "*.bin", "*.bz2", "*.ckpt", "*.ftz", "*.gz", "*.h5", "*.joblib", "*.lfs.*", "*.mlmodel"),
    *("*.model", "*.msgpack", "*.npy", "*.npz", "*.onnx", "*.ot", "*.parquet", "*.pb", "*.pickle", "*.pkl", "*.pt"),
    *("*.pth", "*.rar", "*.safetensors", "saved_model/**/*", "*.tar.*", "*.tar", "*.tflite", "*.tgz", "*.wasm"),
    *("*.xz", "*.zip", "*.zst", "*tfevents*"),
    # Not in the .gitattributes of a fresh model repository, but the hub's clients add them on the first upload.
    *("*.gguf", "*.png", "*.jpg", "*.jpeg", "*.gif", "*.webp", "*.mp3", "*.mp4", "*.wav", "*.pdf"),
)
"""The .gitattributes of a fresh model repository, and the binary kinds that uploads add to it."""


def lfs_patterns(gitattributes: str) -> tuple[str, ...]:
    """The patterns that a .gitattributes file puts under LFS."""
    found = []
    for line in gitattributes.splitlines():
        pattern, *attributes = line.split()[:64] or [""]
        if pattern and not pattern.startswith("#") and "filter=lfs" in attributes:
            found.append(pattern)
    return tuple(found)


def is_lfs(path: str, size: int, patterns: Sequence[str]) -> bool:
    """Whether the hub stores the file at `path` in LFS: it is too large for git, or matches a pattern."""
    return size > MAX_GIT_SIZE or any(_matches(path, pattern) for pattern in patterns)


def _matches(path: str, pattern: str) -> bool:
    """As in .gitignore: a pattern without a slash applies to the last segment, at any depth."""
    if "/" not in pattern:
        return fnmatch.fnmatchcase(path.rpartition("/")[2], pattern)
    # fnmatch's star crosses slashes, so `a/**/*` also needs its form without the middle.
    whole = pattern.removeprefix("/")
    return any(fnmatch.fnmatchcase(path, form) for form in (whole, whole.replace("**/", "")))
