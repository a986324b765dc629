"""The policy on contents: which files and licences of a repository are accepted. Pure.

Formats are judged by name: loaders choose their reader by it, too.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase

from p2pmodel.config.sections.trust import ContentRule
from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.content.names import MODELS, RepoId, printable
from p2pmodel.errors import RefusedContent

CARD = "README.md"
"""The model card, which names the licence."""
CARD_READ = 1 << 20
"""Bytes of a card that are read: its metadata stand at the begin."""

_FORMATS = {
    "safetensors": ("*.safetensors",),
    "gguf": ("*.gguf", "*.ggml"),
    "onnx": ("*.onnx", "*.onnx_data", "*.onnx.data", "*.ort"),
    "pickle": (
        "*.bin", "*.pt", "*.pt2", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.pck", "*.joblib", "*.dill", "*.npy",
        "*.npz", "*.mar", "*.nemo",
    ),
    "keras": ("*.h5", "*.hdf5", "*.keras", "*.pb"),
    "tflite": ("*.tflite",),
    "msgpack": ("*.msgpack",),
    "code": ("*.py", "*.pyc", "*.so", "*.ipynb"),
}  # fmt: skip
"""The formats that rules name, by the names of their files."""


_KEY = re.compile(r"(license|license_name)\s*:\s*(.*)")
_ITEM = re.compile(r"\s*-\s+(.+)")
_COMMENT = re.compile(r"\s+#.*$")
_MOST_LINES = 10_000


class ContentPolicy:
    """The rules on contents. They are for models, not for datasets and spaces."""

    def __init__(self, rules: Sequence[ContentRule] = ()) -> None:
        self._rules = tuple(enumerate(rules, 1))

    def check_files(self, repo: RepoId, paths: Iterable[str]) -> None:
        """Raise RefusedContent if one of the files is not accepted."""
        rules = self._of(repo)
        if not rules:
            return
        for path in paths:
            for number, rule in rules:
                reason = _refusal(rule, path)
                if reason:
                    raise RefusedContent(
                        f"{printable(path)} of {repo} is refused: {reason} (contents.rules {number})",
                        hint=f"leave it out with --exclude '{_pattern_of(path)}', or change the rule",
                    )

    def needs_card(self, repo: RepoId) -> bool:
        """Whether the licence of `repo` matters."""
        return any(rule.licenses for _, rule in self._of(repo))

    def check_card(self, repo: RepoId, card: bytes | None) -> None:
        """Raise RefusedContent if the licence in the model card is not accepted; None: the repository has no card."""
        for number, rule in self._of(repo):
            if not rule.licenses:
                continue
            found = licenses_of(card) if card is not None else ()
            if not found:
                where = "its model card names no licence" if card is not None else "it has no model card"
                raise RefusedContent(f"{repo} is refused: {where} (contents.rules {number})", hint=_LICENSE_HINT)
            if not any(fnmatchcase(name, accepted.lower()) for name in found for accepted in rule.licenses):
                named = printable(", ".join(found), 80)
                raise RefusedContent(
                    f"{repo} is refused: its licence is {named} (contents.rules {number})", hint=_LICENSE_HINT
                )

    def check(
        self, manifest: Manifest, files: Sequence[ManifestFile], read: Callable[[ManifestFile], bytes | None]
    ) -> None:
        """Raise RefusedContent if `files` may not become visible. `read` returns the content of a file in the cache."""
        self.check_files(manifest.repo, (file.path for file in files))
        if not self.needs_card(manifest.repo) or all(file.path == CARD for file in files):
            return
        card = manifest.file(CARD)
        if card is None or card.size > CARD_READ:
            self.check_card(manifest.repo, None)
            return
        content = read(card)
        if content is None:
            raise RefusedContent(
                f"{manifest.repo} is refused: its licence is not known without {CARD}",
                hint=f"download it, too: --include {CARD}",
            )
        self.check_card(manifest.repo, content)

    def _of(self, repo: RepoId) -> list[tuple[int, ContentRule]]:
        if repo.kind != MODELS:
            return []
        return [
            (number, rule)
            for number, rule in self._rules
            if any(fnmatchcase(repo.folded, pattern.lower()) for pattern in rule.repos)
        ]


_LICENSE_HINT = "add the licence to the rule, or exempt the repository"


def _refusal(rule: ContentRule, path: str) -> str:
    """Why `rule` does not accept a file; "" if it does."""
    name = path.lower()
    for pattern in rule.refused_files:
        if fnmatchcase(name, pattern.lower()):
            return f"files {printable(pattern, 60)} are not accepted"
    if not rule.formats:
        return ""
    found = [form for form, patterns in _FORMATS.items() if any(fnmatchcase(name, each) for each in patterns)]
    return "" if not found or set(found) & set(rule.formats) else f"the format {found[0]} is not accepted"


def _pattern_of(path: str) -> str:
    _, dot, suffix = path.rpartition("/")[2].rpartition(".")
    return f"*.{suffix}" if dot else path


def licenses_of(card: bytes) -> tuple[str, ...]:
    """The licences in the metadata of a card, in lower case: one, several, or none. `other` comes with its name."""
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
