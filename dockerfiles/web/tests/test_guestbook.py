"""The guestbook over HTTP, with a double of the counter."""

from __future__ import annotations

import contextlib
import io
import json
import sqlite3
import tempfile
import threading
import unittest
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socketserver import BaseServer
from urllib.parse import urlencode

from guestbook.healthcheck import healthy
from guestbook.requests import LONGEST_BODY
from guestbook.server import GuestbookServer
from guestbook.settings import load_settings

TOKEN = "a token for tests"  # noqa: S105
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}


class CounterDouble(BaseHTTPRequestHandler):
    """Answers every request with the server's `answer`."""

    def do_GET(self) -> None:
        status, body = self.server.answer  # type: ignore[attr-defined]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Do nothing: a double needs no log."""


class GuestbookTest(unittest.TestCase):
    def setUp(self) -> None:
        self.directory = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.log = self.enterContext(contextlib.redirect_stdout(io.StringIO()))
        (self.directory / "site.toml").write_text('title = "Rats & Mice"\ntheme = "dark"\n')
        (self.directory / "key").write_text("0123456789abcdef\n")
        self.counter = HTTPServer(("127.0.0.1", 0), CounterDouble)
        self.counter.answer = (200, b'{"hits": 42}')  # type: ignore[attr-defined]
        self.serve(self.counter)
        settings = load_settings(
            {
                "GREETING": "<hello>",
                "ADMIN_TOKEN": TOKEN,
                "COUNTER_URL": f"http://127.0.0.1:{self.counter.server_address[1]}",
            },
            site=self.directory / "site.toml",
            key=self.directory / "key",
            data=self.directory,
        )
        self.server = GuestbookServer(("127.0.0.1", 0), settings)
        self.port = self.server.server_address[1]
        self.serve(self.server)

    def serve(self, server: BaseServer) -> None:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)

    def ask(
        self, method: str, path: str, body: str | None = None, headers: dict[str, str] | None = None
    ) -> tuple[HTTPResponse, str]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=5)
        self.addCleanup(connection.close)
        connection.request(method, path, body=body, headers=headers or {})
        response = connection.getresponse()
        return response, response.read().decode()

    def sign(self, name: str, message: str) -> tuple[HTTPResponse, str]:
        return self.ask("POST", "/entries", json.dumps({"name": name, "message": message}), JSON)


class FrontPageTest(GuestbookTest):
    def test_greets_with_title_and_visits(self) -> None:
        response, page = self.ask("GET", "/")
        self.assertEqual(response.status, 200)
        for text in ("&lt;hello&gt;", "<h1>Rats &amp; Mice</h1>", "visits: 42"):
            self.assertIn(text, page)

    def test_is_served_while_the_counter_is_away_or_talks_nonsense(self) -> None:
        for answer in ((500, b"{}"), (200, b"no json"), (200, b"[]"), (200, b'{"hits": "many"}')):
            self.counter.answer = answer  # type: ignore[attr-defined]
            response, page = self.ask("GET", "/")
            self.assertEqual((response.status, "visits: unknown" in page), (200, True), answer)

    def test_style_follows_the_theme(self) -> None:
        self.assertIn("color-scheme: dark", self.ask("GET", "/style.css")[1])

    def test_allows_no_script(self) -> None:
        self.assertIn("default-src 'none'", self.ask("GET", "/")[0].headers["Content-Security-Policy"])


class EntriesTest(GuestbookTest):
    def test_a_json_entry_is_stored_and_shown_escaped(self) -> None:
        response, body = self.sign("Ada", "<script>alert(1)</script>")
        self.assertEqual((response.status, json.loads(body)["name"]), (201, "Ada"))
        page = self.ask("GET", "/")[1]
        self.assertIn("&lt;script&gt;alert(1)&lt;/script&gt;", page)
        self.assertNotIn("<script>", page)

    def test_a_form_entry_leads_back_to_the_page(self) -> None:
        response, _ = self.ask("POST", "/entries", urlencode({"name": "Zoë", "message": "héllo & bye"}), FORM)
        self.assertEqual((response.status, response.headers["Location"]), (303, "/"))
        self.assertIn("héllo &amp; bye", self.ask("GET", "/")[1])

    def test_newest_entries_come_first(self) -> None:
        self.sign("A", "older")
        self.sign("B", "newer")
        page = self.ask("GET", "/")[1]
        self.assertLess(page.index("newer"), page.index("older"))

    def test_the_oldest_make_room(self) -> None:
        with contextlib.closing(sqlite3.connect(self.directory / "guestbook.sqlite3")) as connection, connection:
            rows = ((f"n{number}", "m", "t") for number in range(10_000))
            connection.executemany("INSERT INTO entries (name, message, time) VALUES (?, ?, ?)", rows)
        self.sign("one", "more")
        self.assertEqual(self.server.entries.count(), 10_000)

    def test_bad_entries_are_refused_with_a_reason(self) -> None:
        good = json.dumps({"name": "n", "message": "m"})
        for status, body, headers in (
            (400, json.dumps({"name": "", "message": "m"}), JSON),
            (400, json.dumps({"name": "n" * 41, "message": "m"}), JSON),
            (400, json.dumps({"name": "n", "message": "m" * 281}), JSON),
            (400, json.dumps({"name": "n", "message": "two\nlines"}), JSON),
            (400, json.dumps({"name": "n", "message": "\ud800"}), JSON),
            (400, json.dumps({"name": 1, "message": "m"}), JSON),
            (400, json.dumps({"name": "n", "message": "m", "more": 1}), JSON),
            (400, "[]", JSON),
            (400, "[" * 5000, JSON),
            (400, "{", JSON),
            (400, "name=a&name=b&message=c", FORM),
            (400, "name=%ff&message=c", FORM),
            (411, good, {**JSON, "Transfer-Encoding": "chunked"}),
            (413, "x" * (LONGEST_BODY + 1), JSON),
            (415, good, {"Content-Type": "text/plain"}),
        ):
            response, answer = self.ask("POST", "/entries", body, headers)
            self.assertEqual((response.status, bool(json.loads(answer)["error"])), (status, True), body[:60])
        self.assertEqual(self.server.entries.count(), 0)

    def test_a_damaged_database_is_an_answer_and_not_a_crash(self) -> None:
        (self.directory / "guestbook.sqlite3").write_text("this is no database" * 100)
        self.assertEqual(self.sign("n", "m")[0].status, 503)
        self.assertFalse(healthy(self.port))


class SessionTest(GuestbookTest):
    def visit(self, cookie: str) -> str:
        return self.ask("GET", "/", headers={"Cookie": cookie})[1]

    def test_the_name_is_remembered(self) -> None:
        set_cookie = self.sign('Zoë "the" <b>', "m")[0].headers["Set-Cookie"]
        self.assertIn("HttpOnly", set_cookie)
        self.assertIn("hello&gt;, Zoë &quot;the&quot; &lt;b&gt;</p>", self.visit(set_cookie.partition(";")[0]))

    def test_a_forged_or_broken_cookie_is_ignored(self) -> None:
        cookie = self.sign("Ada", "m")[0].headers["Set-Cookie"].partition(";")[0]
        last = "0" if cookie[-1] != "0" else "1"
        for forged in (
            cookie[:-1] + last,
            cookie.replace("session=", "session=9"),
            "session=",
            "session=a.b.c",
            "\x7f",
        ):
            self.assertIn("hello&gt;</p>", self.visit(forged), forged)


class AdminTest(GuestbookTest):
    def admin(self, authorization: str) -> int:
        return self.ask("GET", "/admin", headers={"Authorization": authorization})[0].status

    def test_only_the_token_opens_it(self) -> None:
        self.assertEqual(self.ask("GET", "/admin")[0].status, 401)
        for wrong in ("", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer \xff"):
            self.assertEqual(self.admin(wrong), 401, wrong)
        self.assertEqual(self.admin(f"Bearer {TOKEN}"), 200)

    def test_the_token_is_never_logged(self) -> None:
        self.admin(f"Bearer {TOKEN}")
        self.ask("GET", "/admin?token=from-a-careless-link")
        self.assertTrue(self.server.drain(5))
        self.assertNotIn(TOKEN, self.log.getvalue())
        self.assertNotIn("careless", self.log.getvalue())
        self.assertNotIn(TOKEN, repr(self.server.settings))


class OperationTest(GuestbookTest):
    def test_health_covers_the_counter(self) -> None:
        self.assertTrue(healthy(self.port))
        self.counter.answer = (503, b"{}")  # type: ignore[attr-defined]
        self.assertFalse(healthy(self.port))

    def test_metrics_count_requests_by_known_route(self) -> None:
        self.sign("n", "m")
        self.ask("GET", "/made-up")
        text = self.ask("GET", "/metrics")[1]
        self.assertIn('guestbook_requests_total{method="POST",route="/entries",status="201"} 1', text)
        self.assertIn('guestbook_requests_total{method="GET",route="other",status="404"} 1', text)
        self.assertIn("guestbook_entries 1\n", text)

    def test_wrong_methods_and_paths_are_told_apart(self) -> None:
        self.assertEqual(self.ask("POST", "/", "", FORM)[0].status, 405)
        self.assertEqual(self.ask("GET", "/made-up")[0].status, 404)
        self.assertEqual(self.ask("PUT", "/")[0].status, 501)

    def test_log_lines_are_json(self) -> None:
        self.ask("GET", "/%0aforged")
        self.assertTrue(self.server.drain(5))
        lines = [json.loads(line) for line in self.log.getvalue().splitlines()]
        self.assertEqual([(line["event"], line["status"]) for line in lines], [("request", 404)])


if __name__ == "__main__":
    unittest.main()
