"""Every parser of input from others."""

import ipaddress
import random
import tempfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from p2pmodel.config.checks import check_url
from p2pmodel.config.sections.mirrors import MirrorSettings
from p2pmodel.config.time_windows import Schedule
from p2pmodel.coordinator.assembly.assembly import Assembly
from p2pmodel.coordinator.assembly.messages import parse_manifest, parse_update
from p2pmodel.coordinator.client.cluster_views import _view
from p2pmodel.coordinator.client.transport import _object
from p2pmodel.coordinator.leases.leases import Leases
from p2pmodel.coordinator.leases.messages import parse_demand, parse_message
from p2pmodel.coordinator.rollout.messages import report_of, report_plain, spec_of, view_of, view_plain
from p2pmodel.coordinator.rollout.nodes import told_by_node, told_on_behalf, told_with_demand
from p2pmodel.coordinator.rollout.report import rollout_report
from p2pmodel.coordinator.server.catalog.catalog_folder import CatalogFolder
from p2pmodel.coordinator.server.catalog.publication import read_publication
from p2pmodel.coordinator.tracker.codec import parse_announce, parse_scrape
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import Reference
from p2pmodel.core.files.hash_chain import LogCheck, head_of
from p2pmodel.core.network.addresses import AdvertisedAddress, ListenAddress, neighbourhood
from p2pmodel.core.network.egress import PUBLIC, Egress
from p2pmodel.core.sizes import parse_duration, parse_size
from p2pmodel.http.admission.forwarded import TrustedProxies
from p2pmodel.http.file_response import RangeNotSatisfiable, not_modified, parse_range, range_applies
from p2pmodel.node.snapshot.target import parse_target
from p2pmodel.origin.clock import Clock
from p2pmodel.origin.failures import Failed, RangesIgnored, Refused, status_failure
from p2pmodel.origin.headers import content_range, retry_after, whole_number
from p2pmodel.origin.json_body import _decode, _Inflation
from p2pmodel.origin.listing import following, model_info, tree_page
from p2pmodel.origin.mirrors.mirror import Mirror
from p2pmodel.origin.mirrors.state_file import recall
from p2pmodel.origin.relay.request import HubPath
from p2pmodel.origin.requests import target_of
from p2pmodel.origin.responses import ExpectedRange, judge
from p2pmodel.service.control.bodies import EngineBody, LimitsBody, StartBody
from p2pmodel.serving.openai import chat_request
from p2pmodel.store.cache import HubCache
from p2pmodel.store.files.range_set import read_record, read_synced, record_path
from p2pmodel.store.private_folder import PrivateFolder
from p2pmodel.store.state.judgements import WithheldModels
from p2pmodel.store.state.revisions import known_revision
from p2pmodel.store.state.transfer_records import TransferRecords
from p2pmodel.store.state.verified_blobs import JOURNAL, VerifiedBlobs
from p2pmodel.swarm import bencode
from p2pmodel.swarm.libtorrent.connections import client_name, program_of, zone_of
from p2pmodel.swarm.magnet import magnet_of, parse_magnet
from p2pmodel.swarm.torrents import export_indexes, parse
from scripts.fuzzing import seeds
from scripts.fuzzing.mutation import mutated_value
from scripts.fuzzing.seeds import as_json
from scripts.fuzzing.signatures import signature_targets
from scripts.fuzzing.target import Target, of_bytes, of_text, of_value

_ORIGIN = (Failed, Refused, RangesIgnored)
_ODD_BENCODE: tuple[Any, ...] = (-1, 0, 2**63, 10**19, b"", b"\xff", b"\x00", b"../x", b"a/b", [], {}, {b"": {}}, [[]])


def targets() -> list[Target]:
    """All of them."""
    folder = Path(tempfile.mkdtemp())
    signatures = signature_targets(Path(tempfile.mkdtemp()))
    return [*_swarm(), *_coordinator(), *_origin(), *_server(), *_settings(), *_state(folder), *signatures]


def _swarm() -> list[Target]:
    magnet = magnet_of(seeds.metainfo(), sources=["http://a.example/x.torrent"])
    torrents = seeds.torrents()
    return [
        Target("bencode", bencode.decode, [torrents[2], b"d1:ai1e1:bl2:xyee"], expected=(bencode.BencodeError,)),
        Target("torrent", parse, torrents),
        Target("torrent of values", lambda v: parse(_bencoded(v)), seeds.torrent_values(), _of_bencode),
        Target("torrent of any format", lambda v: _each(_bencoded(v), export_indexes, read_publication),
               seeds.torrent_values(), _of_bencode),
        Target("magnet", parse_magnet, [magnet], of_text),
        Target("client name", lambda v: (zone_of(v), program_of(v)), [client_name("rack-1").encode(), b"qBittorrent"]),
    ]  # fmt: skip


def _coordinator() -> list[Target]:
    demand, message, manifest, update = seeds.lease_texts()
    values = [(_json(text), text) for text in (demand, message, manifest, update)]
    return [
        Target("lease demand", _demand, [values[0][0]], of_value),
        Target("coordinator message", lambda v: parse_message(_text(v)), [values[1][0]], of_value),
        Target("assembly manifest", lambda v: parse_manifest(_text(v)), [values[2][0]], of_value),
        Target("assembly update", _update, [values[3][0]], of_value),
        Target("messages as text", _messages, [text for _, text in values], of_text),
        Target("manifest", Manifest.from_dict, [seeds.manifest().to_dict()], of_value),
        Target("announce", lambda q: _each(q, parse_announce, parse_scrape), seeds.announce_queries(), of_text),
        Target("roll-out report", _rollout_report, [report_plain(seeds.node_report())], of_value),
        Target("roll-out", lambda v: _each(v, spec_of, view_of), seeds.rollout_values(), of_value),
        Target("catalog answer", _catalog_answer, seeds.catalog_values(), of_value),
        Target("peer's address", neighbourhood, ["10.0.0.1", "fe80::1%eth0", "::ffff:10.0.0.1"], of_text),
    ]


def _origin() -> list[Target]:
    headers = {
        "Content-Range": "bytes 0-9/20",
        "Content-Length": "10",
        "Content-Type": "application/octet-stream",
        "Content-Encoding": "gzip",
        "ETag": '"' + "ab" * 32 + '"',
        "X-Repo-Commit": seeds.COMMIT,
        "X-Linked-Etag": '"' + "ab" * 32 + '"',
        "X-Error-Code": "GatedRepo",
        "Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT",
        "RateLimit": '"api";r=0;t=30',
        "Link": '<http://hub.example/api/models/org/tiny/tree/main?cursor=5>; rel="next"',
        "Location": "https://cdn.example/x?a=%2F",
    }
    return [
        Target("model information", lambda v: _decode(as_json(v), model_info), seeds.model_infos(), of_value, _ORIGIN),
        Target("tree page", lambda v: _decode(as_json(v), tree_page), seeds.tree_pages(), of_value, _ORIGIN),
        Target(
            "hub JSON", lambda b: _decode(b, tree_page), [as_json(v) for v in seeds.tree_pages()], of_bytes, _ORIGIN
        ),
        Target("gzip body", _inflated, [_gzipped(b"data" * 3000)], of_bytes, _ORIGIN),
        Target("response headers", _headers, [headers], _of_headers, _ORIGIN),
        Target(
            "redirect", lambda t: target_of(URL("http://hub.example/a"), t), [headers["Location"]], of_text, _ORIGIN
        ),
        Target("hub path", HubPath, ["/org/m/resolve/main/a/b.json", "/api/models/org/m/tree/main"], of_text),
    ]


def _server() -> list[Target]:
    bodies = seeds.control_bodies()
    return [
        Target("range", _range, ["bytes=0-9", "bytes=-5", "bytes=5-", 'W/"ab"', "*"], of_text, (RangeNotSatisfiable,)),
        Target("forwarded client", _forwarded, ["192.0.2.7, 10.0.0.8:1", 'for="[::1]:80";by=x, for=_a'], of_text),
        Target("control body", _control_body, bodies, of_value, (ValueError,)),
        Target("chat request", _chat_request, seeds.chat_requests(), of_value),
        Target(
            "chat request text", lambda raw: chat_request(raw, most_tokens=9), [*map(as_json, seeds.chat_requests())]
        ),
    ]


def _chat_request(value: Any) -> object:
    return chat_request(as_json(value), most_tokens=9)


def _settings() -> list[Target]:
    references = ["org/tiny@main", "hf://org/tiny@refs/pr/1", "http://a/x.torrent", "bert-base"]
    return [
        Target("size and time", lambda t: _each(t, parse_size, parse_duration), ["1.5GB", "72h", "64MiB"], of_text),
        Target("schedule", lambda t: Schedule.parse((t,)), ["mon-fri 08:00-18:00=20MB", "22:00-06:00=0"], of_text),
        Target("address", ListenAddress.parse, ["127.0.0.1:80", "[::1]:0", "host:99999"], of_text),
        Target("advertised", AdvertisedAddress.parse, ["10.0.0.1", "[fd00::1]:80", "host:99999", "fd00::1"], of_text),
        Target("reference", lambda t: _each(t, Reference.parse, parse_target), references, of_text),
        Target("URL", check_url, ["http://a.example:80/x", "https://[::1]:1/"], of_text, (ValueError,)),
        Target("egress", _egress, ["10.0.0.0/8", "fe80::1%eth0", "http://a.example:80/", "h.internal"], of_text),
    ]


def _state(folder: Path) -> list[Target]:
    values = seeds.state_values()
    log, line = seeds.log_lines()

    def target(kind: str, path: Path, read: Callable[[Path], object]) -> list[Target]:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)

        def run(data: bytes) -> None:
            path.write_bytes(data)
            path.chmod(0o600)
            read(path)

        found = values[kind]
        return [
            Target(f"state: {kind} values", lambda v: run(as_json(v)), found, of_value),
            Target(f"state: {kind}", run, [as_json(v) for v in found]),
        ]

    repo = HubCache(folder / "hub").repo(seeds.manifest().repo)
    private, commit = repo.made_private, seeds.COMMIT
    blob = folder / "blob"
    blob.write_bytes(b"abc")
    journal = PrivateFolder(folder / "hub", repo.folder.name)
    return [
        *target("transfer", folder / "transfers" / "x.json", lambda p: TransferRecords(p.parent).load()),
        *target("revision", private / "revisions" / _revision_file(), lambda _: known_revision(repo, "main")),
        *target("blob", private / JOURNAL, lambda _: VerifiedBlobs(journal).holds(seeds.SHA256, blob)),
        *target("mirrors", folder / "mirrors" / "mirrors.json", _recall),
        *target("ranges", record_path(blob), lambda _: _ranges(blob)),
        *target("manifest", private / "manifests" / f"{commit}.json", lambda _: repo.manifest(commit)),
        *target("tree", repo.folder / "trees" / f"{commit}.json", lambda _: repo.manifest(commit)),
        *target("withheld", folder / "withheld.json", WithheldModels),
        *target("refs", folder / "catalog" / "refs.json", lambda p: CatalogFolder(p.parent).load()),
        Target("sync log", _check_log, [log]),
        Target("end of a sync log", head_of, [line]),
    ]


# -- runs ------------------------------------------------------------------------------------------------------------


def _each(data: Any, *parsers: Callable[[Any], object]) -> None:
    """All of `parsers`: one that refuses does not keep the others from running."""
    failures = []
    for parser in parsers:
        try:
            parser(data)
        except Exception as error:  # noqa: BLE001 - raised below
            failures.append(error)
    odd = [error for error in failures if not hasattr(error, "what")]
    for error in (*odd, *failures):
        raise error


def _demand(value: Any) -> None:
    demand = parse_demand(_text(value))
    leases = Leases(9, 900, budget=1.0)
    leases.update("a", demand, 1.0)
    leases.grant(1.0)
    leases.update("b", demand, 2.0)
    leases.update("a", demand, 9.0)
    leases.grant(9.0)
    leases.leave("a")


def _update(value: Any) -> None:
    demand, roots = parse_update(_text(value))
    assembly = Assembly(seeds.manifest())
    assembly.update("a", demand, roots, 1.0)
    assembly.update("b", demand, {}, 2.0)
    assembly.grant(3.0)
    assembly.next_partial_torrent()
    assembly.leave("a")


def _rollout_report(value: Any) -> None:
    report = report_of(value)
    rollout = seeds.rollout()
    for second, by in enumerate((told_with_demand, told_on_behalf, told_by_node), 1):
        if rollout.open:
            rollout.take("a", report, float(second), 1e9, by)
    rollout_report(rollout.view(9.0))
    view_of(view_plain(rollout.view(9.0)))


def _messages(text: str) -> None:
    _each(text, parse_demand, parse_message, parse_manifest, parse_update)


def _catalog_answer(value: Any) -> None:
    plain = _object(as_json(value))
    listed = plain.get("torrents")
    for each in listed if isinstance(listed, list) else ():
        if isinstance(each, dict):
            _view(each)


def _headers(headers: CIMultiDictProxy[str]) -> None:
    manifest, now = seeds.manifest(), datetime.now(UTC)
    content_range(headers.get("Content-Range"))
    retry_after(headers, now)
    whole_number(headers.get("Content-Length"))
    runs: list[Callable[[], object]] = [
        lambda: judge(206, headers, ExpectedRange(manifest, manifest.files[0], 0, 10), now=now, has_token=True),
        lambda: judge(200, headers, ExpectedRange(manifest, manifest.files[0], 0, 10), now=now, has_token=True),
        lambda: judge(416, headers, ExpectedRange(manifest, manifest.files[0], 0, 10), now=now, has_token=True),
        lambda: status_failure(403, headers, now),
        lambda: following(headers, URL("http://hub.example/api/models/org/tiny/tree/main")),
    ]
    for run in runs:
        with suppress(*_ORIGIN):
            run()


def _inflated(data: bytes) -> None:
    inflation = _Inflation()
    for at in range(0, len(data), 1000):
        for part in inflation.parts(data[at : at + 1000]):
            assert len(part) <= 64 << 10


def _forwarded(header: str) -> None:
    proxies = TrustedProxies.parse(["10.0.0.0/8"])
    for name in ("X-Forwarded-For", "Forwarded"):
        found = proxies.client("10.0.0.1", CIMultiDictProxy(CIMultiDict({name: header})))
        assert found is not None
        ipaddress.ip_address(found)


def _range(header: str) -> None:
    for size in (0, 1, 10**12):
        parse_range(header, size)
    not_modified(header, "ab")
    range_applies(header, "ab")


def _control_body(value: Any) -> None:
    data = as_json(value)
    _each(data, StartBody.model_validate_json, EngineBody.model_validate_json, LimitsBody.model_validate_json)


def _egress(text: str) -> None:
    for rule in (PUBLIC, Egress.parse([text.strip()])):
        rule.url_refusal(text)
        rule.url_refusal(f"http://{text}/")
        rule.refusal(text)
        rule.around(text).in_cluster(text)
        rule.names(text)


def _recall(path: Path) -> None:
    mirror = Mirror(MirrorSettings(name="m", endpoint="http://m"), "m", 0)
    recall(path.parent, (mirror,), Clock())
    mirror.status(0.0)


def _ranges(staged: Path) -> None:
    file = seeds.manifest().files[0]
    read_record(staged, file, file.size)
    read_record(staged, file, file.size, root=seeds.SHA256)
    read_synced(staged, file)


def _check_log(data: bytes) -> None:
    check = LogCheck()
    for line in data.splitlines(keepends=True):
        check.feed(line)
    check.end()


# -- forms of input --------------------------------------------------------------------------------------------------


def _json(text: str) -> Any:
    import json  # noqa: PLC0415

    return json.loads(text)


def _text(value: Any) -> str:
    return as_json(value).decode()


def _bencoded(value: Any) -> bytes:
    try:
        return bencode.encode(value)
    except (TypeError, RecursionError, AttributeError):
        return b"l" * 5000


def _of_bencode(seed: Any, dice: random.Random) -> Any:
    return mutated_value(seed, dice, lambda d: d.choice(_ODD_BENCODE))


def _of_headers(seed: dict[str, str], dice: random.Random) -> CIMultiDictProxy[str]:
    found: CIMultiDict[str] = CIMultiDict()
    for name, value in seed.items():
        for _ in range(dice.choice((0, 1, 1, 1, 2))):
            found.add(name, of_text(value, dice) if dice.random() < 0.3 else value)
    return CIMultiDictProxy(found)


def _gzipped(data: bytes) -> bytes:
    compress = zlib.compressobj(wbits=31)
    return compress.compress(data) + compress.flush()


def _revision_file() -> str:
    import hashlib  # noqa: PLC0415

    return f"{hashlib.sha256(b'main').hexdigest()}.json"
