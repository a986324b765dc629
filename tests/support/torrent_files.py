"""Small snapshots held in memory, hashed the slow and obvious way, for tests of torrents."""

import hashlib
from collections.abc import Mapping

from p2pmodel.core.content.layout import piece_length_for
from p2pmodel.core.content.manifest import Manifest, ManifestFile, git_blob_hasher, lfs_pointer_oid
from p2pmodel.core.content.merkle import FileTree, piece_hash, tree_of
from p2pmodel.core.content.names import RepoId
from p2pmodel.swarm.metainfo import Format
from p2pmodel.swarm.torrents import build, layout_of

Contents = Mapping[str, bytes]

COMMIT = "c0ffee" * 6 + "beef"
SMALL: Contents = {
    ".gitattributes": b"*.safetensors filter=lfs\n",
    "config.json": b"{}" * 40,
    "empty.txt": b"",
    "model.safetensors": bytes(range(256)) * 4096,
    "nested/a b/ünï.json": b"[1]" * 20_000,
}


def manifest_of(contents: Contents, *, repo: str = "org/tiny", commit: str = COMMIT, private: bool = False) -> Manifest:
    """The manifest the hub would give; `.safetensors` files are LFS."""
    files = []
    for path, data in contents.items():
        if path.endswith(".safetensors"):
            sha256 = hashlib.sha256(data).hexdigest()
            files.append(ManifestFile(path, len(data), lfs_pointer_oid(sha256, len(data)), sha256))
        else:
            digest = git_blob_hasher(len(data))
            digest.update(data)
            files.append(ManifestFile(path, len(data), digest.hexdigest()))
    return Manifest(RepoId(repo), commit, tuple(files), private=private)


def trees_of(contents: Contents, piece_length: int) -> dict[str, FileTree]:
    """Merkle trees of the non-empty files."""
    trees = {}
    for path, data in contents.items():
        pieces = [data[at : at + piece_length] for at in range(0, len(data), piece_length)]
        if pieces:
            hashes = [piece_hash(piece, piece_length, only_piece=len(pieces) == 1) for piece in pieces]
            trees[path] = tree_of(hashes, piece_length)
    return trees


def v1_pieces_of(contents: Contents, manifest: Manifest, piece_length: int, form: Format) -> bytes | None:
    """SHA-1 pieces over the concatenation (v1), in which every file starts a piece (hybrid)."""
    if form == "v2":
        return None
    stream = b""
    for file in manifest.files:
        if form == "hybrid" and file.size:
            stream += bytes(-len(stream) % piece_length)
        stream += contents[file.path]
    return b"".join(hashlib.sha1(stream[at : at + piece_length]).digest() for at in range(0, len(stream), piece_length))


def torrent_of(
    contents: Contents,
    form: Format = "v2",
    *,
    piece_length: int | None = None,
    private: bool = False,
    repo: str = "org/tiny",
    commit: str = COMMIT,
    trackers: tuple[str, ...] = (),
    webseeds: tuple[str, ...] = (),
    authority: str | None = None,
) -> bytes:
    """The .torrent of `contents`; `authority`: the root certificate of its private swarm."""
    manifest = manifest_of(contents, private=private, repo=repo, commit=commit)
    length = piece_length or piece_length_for(manifest.total_size)
    assert layout_of(manifest, length).piece_length == length
    return build(
        manifest,
        trees_of(contents, length),
        format=form,
        authority=authority,
        v1_pieces=v1_pieces_of(contents, manifest, length, form),
        trackers=trackers,
        webseeds=webseeds,
        piece_length=length,
    )
