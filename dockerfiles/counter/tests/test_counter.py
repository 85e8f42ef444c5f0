"""The counter over HTTP, on a port of the loopback address."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import threading
import unittest
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

from counter.healthcheck import healthy
from counter.server import CounterServer
from counter.store import HitStore


class CounterTest(unittest.TestCase):
    def setUp(self) -> None:
        self.directory = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.log = self.enterContext(contextlib.redirect_stdout(io.StringIO()))
        self.server = CounterServer(("127.0.0.1", 0), HitStore(self.directory / "hits"))
        self.port = self.server.server_address[1]
        thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, dict[str, object]]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=5)
        self.addCleanup(connection.close)
        connection.request(method, path, body=body)
        response = connection.getresponse()
        return response.status, json.loads(response.read())

    def test_starts_at_zero(self) -> None:
        self.assertEqual(self.ask("GET", "/hits"), (200, {"hits": 0}))

    def test_each_post_counts_once(self) -> None:
        self.assertEqual(self.ask("POST", "/hits"), (200, {"hits": 1}))
        self.assertEqual(self.ask("POST", "/hits"), (200, {"hits": 2}))
        self.assertEqual(self.ask("GET", "/hits"), (200, {"hits": 2}))

    def test_no_hit_is_lost_when_many_come_at_once(self) -> None:
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda _: self.ask("POST", "/hits")[1]["hits"], range(100)))
        self.assertEqual(sorted(map(int, map(str, answers))), list(range(1, 101)))

    def test_the_count_survives_a_restart(self) -> None:
        self.ask("POST", "/hits")
        self.assertEqual(HitStore(self.directory / "hits").hits, 1)

    def test_a_body_is_refused(self) -> None:
        self.assertEqual(self.ask("POST", "/hits", b"12345")[0], 413)
        self.assertEqual(self.ask("GET", "/hits"), (200, {"hits": 0}))

    def test_unknown_paths_are_not_found(self) -> None:
        self.assertEqual(self.ask("GET", "/other")[0], 404)
        self.assertEqual(self.ask("POST", "/other")[0], 404)

    def test_a_hit_that_cannot_be_stored_is_not_counted(self) -> None:
        (self.directory / "hits.new").mkdir()
        self.assertEqual(self.ask("POST", "/hits")[0], 503)
        self.assertEqual(self.ask("GET", "/healthz")[0], 503)
        self.assertFalse(healthy(self.port))
        self.assertEqual(self.ask("GET", "/hits"), (200, {"hits": 0}))

    def test_health_is_told_and_not_logged(self) -> None:
        self.assertTrue(healthy(self.port))
        self.ask("GET", "/hits")
        self.assertTrue(self.server.drain(5))
        lines = [json.loads(line) for line in self.log.getvalue().splitlines()]
        self.assertEqual([line["path"] for line in lines], ["/hits"])

    def test_nobody_listening_is_unhealthy(self) -> None:
        self.assertFalse(healthy(1))


if __name__ == "__main__":
    unittest.main()
