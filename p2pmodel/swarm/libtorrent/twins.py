"""Large files of equal content in one torrent, with which libtorrent 2.1.1 cannot deal.

They share a pieces root, hence a piece layer. When it loads a torrent libtorrent moves that layer into the first such
file; the pieces of the others can then never be checked, and a download waits for them for ever.
"""

from typing import Any

import libtorrent as lt


def twins_of(info: lt.torrent_info) -> list[list[int]]:
    """File indexes, by group, of files that share a piece layer. Files of at most one piece have none."""
    files = info.files()
    by_root: dict[str, list[int]] = {}
    for index in range(files.num_files()):
        if files.file_size(index) > info.piece_length():
            by_root.setdefault(str(files.root(index)), []).append(index)
    return [group for group in by_root.values() if len(group) > 1]


def with_layers(params: lt.add_torrent_params, limits: Any) -> lt.add_torrent_params:
    """`params` with the layer given to every file that shares it: by way of resume data, the one form in which the
    bindings show the trees."""
    groups = twins_of(params.ti) if params.ti is not None and params.ti.info_hashes().has_v2() else []
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
