"""Clients that read ranges of files over HTTP and look at every byte they are sent, as it comes."""

import http.client
import random
import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import Self
from urllib.parse import urlsplit

from tests.support.eventually import PATIENCE

_READ = 16 << 10
_PAUSE = 0.05


class RangeReaders:
    """Threads that request random ranges of `files` (URL path -> expected bytes) from `endpoint` until the `with` block
    ends. Refusals and broken connections are retried. A byte that differs from the file is recorded in `wrong`.
    """

    def __init__(self, endpoint: str, files: Mapping[str, bytes], dice: random.Random, *, readers: int = 2) -> None:
        self.wrong: list[str] = []
        self.statuses: Counter[int] = Counter()
        self.checked = 0
        """Bytes that were looked at."""
        self._address = urlsplit(endpoint).netloc
        self._files = files
        self._stop = threading.Event()
        self._counting = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, args=(random.Random(dice.random()),), daemon=True)
            for _ in range(readers)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE + 5)
        assert not self.wrong, self.wrong

    def _run(self, dice: random.Random) -> None:
        while not self._stop.is_set():
            path, content = dice.choice(list(self._files.items()))
            first = dice.randrange(len(content))
            last = min(len(content), first + dice.randrange(1, len(content))) - 1
            try:
                self._read(path, content, first, last)
            except (OSError, http.client.HTTPException):
                time.sleep(_PAUSE)

    def _read(self, path: str, content: bytes, first: int, last: int) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=PATIENCE)
        try:
            connection.request("GET", path, headers={"Range": f"bytes={first}-{last}"})
            answer = connection.getresponse()
            with self._counting:
                self.statuses[answer.status] += 1
            if answer.status == 206:
                said = answer.headers["Content-Range"]
                self._expect(said == f"bytes {first}-{last}/{len(content)}", f"{path}: {first}-{last} is {said}")
                self._compare(path, answer, content, first)
            elif answer.status == 200:
                self._compare(path, answer, content, 0)
            else:
                time.sleep(_PAUSE)
        finally:
            connection.close()

    def _compare(self, path: str, answer: http.client.HTTPResponse, content: bytes, at: int) -> None:
        while not self._stop.is_set() and (data := answer.read1(_READ)):
            self._expect(data == content[at : at + len(data)], f"{path}: wrong bytes in {at}-{at + len(data)}")
            at += len(data)
            with self._counting:
                self.checked += len(data)

    def _expect(self, met: bool, otherwise: str) -> None:
        if not met:
            self.wrong.append(otherwise)
