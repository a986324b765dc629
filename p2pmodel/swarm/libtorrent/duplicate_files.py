"""Workaround for large files of equal content in one torrent (libtorrent 2.1.1).

They share a pieces root, and so a piece layer. On load libtorrent moves that layer to the first such file. The pieces
of the others can then not be checked, and a download waits for them for ever.
"""

from typing import Any

import libtorrent as lt


def duplicates_of(info: lt.torrent_info) -> list[list[int]]:
    """Groups of indexes of files with a common piece layer. Files of at most one piece have no layer."""
    files = info.files()
    by_root: dict[str, list[int]] = {}
    for index in range(files.num_files()):
        if files.file_size(index) > info.piece_length():
            by_root.setdefault(str(files.root(index)), []).append(index)
    return [group for group in by_root.values() if len(group) > 1]


def with_layers(params: lt.add_torrent_params, limits: Any) -> lt.add_torrent_params:
    """`params` with the layer set for every file that shares it, through resume data: the bindings expose the trees in
    no other form."""
    groups = duplicates_of(params.ti) if params.ti is not None and params.ti.info_hashes().has_v2() else []
    if not groups:
        return params
    plain: Any = lt.bdecode(lt.write_resume_data_buf(params))
    trees = plain[b"trees"]
    for group in groups:
        layers = [trees[index] for index in group if trees[index].get(b"hashes")]
        for index in group if layers else ():
            trees[index] = dict(layers[0])
    loaded: lt.add_torrent_params = lt.read_resume_data(lt.bencode(plain), limits)
    return loaded
