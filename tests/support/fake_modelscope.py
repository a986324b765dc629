"""A ModelScope double: revisions of its own, listings with sha256, content by revision and path.

As a process: `python -m tests.support.fake_modelscope --dir DIR --repo org/name --log FILE` prints `{"url": ...}` and
serves until SIGTERM.
"""

import argparse
import asyncio
import hashlib
import json
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from aiohttp import web

from p2pmodel.http.runner import ListeningRunner

REVISION = "5e5" * 13 + "d"
"""A commit of ModelScope, which the hub does not know."""


class FakeModelScope:
    """Serves `contents` by path as the model `repo`. `sent`: the paths of content that was requested. `asked`: the
    number of listings."""

    def __init__(self, repo: str, contents: Mapping[str, bytes], *, log: Path | None = None) -> None:
        self.repo = repo
        self.contents = contents
        self.sent: list[str] = []
        self.asked = 0
        self.url = ""
        self._log = log

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get(f"/api/v1/models/{self.repo}/repo/files", self._files)
        app.router.add_get(f"/api/v1/models/{self.repo}/repo", self._content)
        self._runner = ListeningRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await self._runner.listen(host="127.0.0.1", port=0)
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._runner.cleanup()

    async def _files(self, request: web.Request) -> web.Response:
        self.asked += 1
        files = [
            {
                "Type": "blob",
                "Name": path.rpartition("/")[2],
                "Path": path,
                "Size": len(data),
                "Sha256": hashlib.sha256(data).hexdigest(),
                "Revision": REVISION,
            }
            for path, data in self.contents.items()
        ]
        folders = [{"Type": "tree", "Name": "w", "Path": "w", "Size": 0, "Sha256": "", "Revision": REVISION}]
        return web.json_response({"Code": 200, "Success": True, "Data": {"Files": files + folders}})

    async def _content(self, request: web.Request) -> web.Response:
        path = request.query["FilePath"]
        data = self.contents.get(path)
        if request.query["Revision"] != REVISION or data is None:
            return web.json_response({"Code": 404, "Success": False}, status=404)
        self.sent.append(path)
        if self._log is not None:
            with self._log.open("a") as log:
                log.write(f"{path}\n")
        part = request.http_range
        start, end = part.start or 0, min(part.stop or len(data), len(data))
        if "Range" not in request.headers:
            return web.Response(body=data)
        return web.Response(
            status=206, body=data[start:end], headers={"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}
        )


async def _serve(options: argparse.Namespace, contents: Mapping[str, bytes]) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with FakeModelScope(options.repo, contents, log=options.log) as scope:
        sys.stdout.write(json.dumps({"url": scope.url}) + "\n")
        sys.stdout.flush()
        await stopped.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--repo", required=True)
    parser.add_argument("--log", type=Path)
    chosen = parser.parse_args()
    files = (path for path in sorted(chosen.dir.rglob("*")) if path.is_file())
    asyncio.run(_serve(chosen, {str(path.relative_to(chosen.dir)): path.read_bytes() for path in files}))
