"""Requests to a hub endpoint that no client of good will would send, drawn from a random generator."""

import random

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LONG = "/" + "a" * 9000
SEGMENTS = (
    *("org", "model", "resolve", "main", "tree", "refs", "pr", "1", "api", "models", "datasets", "spaces", "revision"),
    *("config.json", "model.safetensors", "paths-info", "sync-log", ".pad", "4096", "99999999999999999999", COMMIT),
    *("..", ".", "%2e%2e", "%2E", "%2f", "%2F..%2f", "%5c", "%00", "%0a", "%0d%0aX:%20y", "%ff", "%c0%ae", "%20"),
    *("%25", "%252e%252e", "%ed%b3%bf", "~", "*", ";", ":", "@", "'", "", "a" * 300, "a--b", "-a", "refs%2fpr%2f1"),
)
NO_SEGMENTS = ("\\", "%", "%zz", "%u0041", "ö", "\udcff", '"', "<x>", "{repo}", " ", "\x7f", "\x01")
"""What no path may have in it."""
ROUTES = (
    "/api/models/{}/{}",
    "/api/models/{}/{}/revision/{}",
    "/api/models/{}/{}/tree/{}",
    "/api/models/{}/{}/tree/{}/{}",
    "/api/models/{}/{}/refs",
    "/api/models/{}/{}/paths-info/{}",
    "/api/datasets/{}/{}",
    "/datasets/{}/{}/resolve/{}/{}",
    "/{}/{}/resolve/{}/{}",
    "/{}/resolve/{}/{}",
    "/org/model/resolve/{}/{}",
    "/api/models/org/model",
    "/api/models/org/model/revision/main",
    "/api/models/org/model/tree/main?limit=1&recursive=1",
    "/org/model/resolve/main/model.safetensors",
    "/org/model/resolve/main/{}",
    "/org/model/resolve/main/.pad/{}",
    "/api/models/org/model/tree/main/{}",
)
QUERIES = (
    *(
        "blobs=true",
        "recursive=1",
        "limit=0",
        "limit=-1",
        "limit=1e3",
        "limit=" + "9" * 30,
        "limit=1",
        "cursor=",
        "%00=%00",
    ),
    *(
        f"cursor={COMMIT}.0",
        f"cursor={COMMIT}.999999999",
        "cursor=x.y",
        "expand=lastCommit",
        "a" * 3000,
        "&&&=&",
        "%ff",
        "?",
    ),
)
METHODS = (
    *("GET",) * 10,
    *("HEAD",) * 3,
    *("POST",) * 3,
    *("PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "CONNECT", "get", "G@T", "X" * 40),
)
HEADERS = (
    *(
        ("Range", value)
        for value in ("bytes=0-0", "bytes=-5", "bytes=5-", "bytes=-0", "bytes=9-1", "bytes=a-b", "bytes")
    ),
    *(
        ("Range", value)
        for value in (f"bytes={'9' * 19}-", f"bytes={'9' * 40}-{'9' * 41}", "bytes=0-1,3-4", "lines=1-2")
    ),
    *(("Range", value) for value in ("bytes=0-" + "9" * 5000, "bytes=" + "0-0," * 1000, "bytes=\u00b2-\u00b3", "")),
    *(("If-Range", value) for value in ('"x"', 'W/"x"', "yesterday", "")),
    *(("If-None-Match", value) for value in ("*", '"', '"' * 500, 'W/"x", "y"')),
    *(("Authorization", value) for value in ("Bearer", "Bearer ö", "Basic Og==", "Bearer " + "x" * 4000, "\udcff")),
    *(("Content-Type", value) for value in ("application/json", "application/json; charset=none-such", "text/x; q")),
    *(("Content-Type", value) for value in ("application/x-www-form-urlencoded; charset=rot13", "multipart/form-data")),
    *(("Content-Type", value) for value in ("multipart/form-data; boundary=x", "multipart/x; boundary=" + "b" * 200)),
    *(("Content-Encoding", value) for value in ("gzip", "deflate", "br", "zstd", "none-such")),
    *(("Expect", value) for value in ("100-continue", "wonders")),
    *(("Connection", value) for value in ("close", "keep-alive", "upgrade")),
    *(("Upgrade", value) for value in ("websocket", "h2c", "TLS/1.0")),
    *(
        ("Host", value)
        for value in ("", "[", "[::1", "a b", "evil.example", "127.0.0.1:99999", "127.0.0.1:x", "@", "\udcff")
    ),
    *(("Accept-Encoding", value) for value in ("gzip", "gzip;q=0", "*" * 500)),
    *(("X-Forwarded-Proto", value) for value in ("https", "javascript")),
    *(("Origin", value) for value in ("null", "http://[")),
)
NO_HEADERS = (
    *(("Content-Length", value) for value in ("0", "5", "-1", "+5", "5, 5", "9" * 30, "0x5", " ", "1e1")),
    *(
        ("Transfer-Encoding", value)
        for value in ("chunked", "xchunked", "chunked, chunked", "gzip, chunked", "identity")
    ),
    *(("X" * 100, "y"), ("X y", "z"), ("X", "\x00"), ("X", "a\r\n folded"), (" X", "y"), ("", "y"), ("\u00fc", "y")),
    *(("X", "y" * 9000), ("Connection", "\x00"), ("Host", "a" * 3000)),
)
"""What most requests with it fail for at once."""
PATHS_INFO = "/api/models/org/model/paths-info/main"
"""The one thing that can be POSTed to."""
BODIES = (
    b"",
    b"{}",
    b'{"paths": ["config.json", "\\ud800"]}',
    b'{"paths": {"a": 1}}',
    b"[" * 50_000,
    b"paths=config.json&paths=%ff%00",
    b"&" * 20_000,
    b"--x\r\nContent-Disposition: form-data; name=paths\r\n\r\nconfig.json\r\n--x--\r\n",
    b"--x\r\n\r\n",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"zz\r\nhello\r\n",
    b"\x1f\x8b\x08\x00junk",
    b"\x00\xff" * 2000,
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
)


def drawn(dice: random.Random, token: str | None) -> bytes:
    """A request. It has a way in (Host, token) more often than not: junk must get past the door to do harm."""
    headers = dice.choices(HEADERS, k=dice.choice((0, 1, 2, 3, 4)))
    if dice.random() < 0.1:
        headers.append(dice.choice(NO_HEADERS))
    if dice.random() < 0.8 or "Host" not in dict(headers):
        headers = [("Host", "127.0.0.1"), *((name, value) for name, value in headers if name != "Host")]
    if token and dice.random() < 0.9:
        headers = [("Authorization", f"Bearer {token}"), *(each for each in headers if each[0] != "Authorization")]
    method = dice.choice(METHODS)
    body = dice.choice(BODIES) if method not in ("GET", "HEAD") or dice.random() < 0.05 else b""
    if body and dice.random() < 0.9:
        headers.append(("Content-Length", str(len(body))))
    target = PATHS_INFO if method == "POST" and dice.random() < 0.8 else _target(dice)
    version = dice.choice(("HTTP/1.1",) * 40 + ("HTTP/1.0", "HTTP/2.0", "HTTP/1.1 x", "http/1.1", ""))
    end = "\n" if dice.random() < 0.02 else "\r\n"
    lines = [f"{method} {target} {version}", *(f"{name}: {value}" for name, value in headers), "", ""]
    return end.join(lines).encode("utf-8", "surrogateescape") + body


def _target(dice: random.Random) -> str:
    if dice.random() < 0.02:
        return dice.choice(("*", "127.0.0.1:80", "http://evil.example/x", "http://[/", "//", "/" * 500, "x", LONG))
    route = dice.choice(ROUTES) if dice.random() < 0.85 else "/{}" * dice.randint(1, 8)
    path = route.format(*dice.choices(SEGMENTS, k=route.count("{}")))
    if dice.random() < 0.05:
        path += dice.choice(NO_SEGMENTS)
    return path + ("?" + "&".join(dice.choices(QUERIES, k=dice.randint(1, 3))) if dice.random() < 0.3 else "")
