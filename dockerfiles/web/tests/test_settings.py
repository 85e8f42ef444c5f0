"""Invalid settings are refused, and messages contain no secrets."""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

from guestbook.settings import Settings, SettingsError, load_settings


class SettingsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.directory = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.site = self.directory / "site.toml"
        self.site.write_text('title = "T"\n')
        self.key = self.directory / "key"
        self.key.write_text("0123456789abcdef")

    def load(self, **environment: str) -> Settings:
        values = {"ADMIN_TOKEN": "token", **environment}
        return load_settings(values, site=self.site, key=self.key, data=self.directory)

    def refused(self, **environment: str) -> str:
        with self.assertRaises(SettingsError) as caught:
            self.load(**environment)
        return str(caught.exception)

    def test_defaults(self) -> None:
        settings = self.load()
        self.assertEqual((settings.greeting, settings.theme, settings.counter), ("hello", "light", ("counter", 8000)))

    def test_an_empty_token_is_refused(self) -> None:
        self.assertIn("ADMIN_TOKEN", self.refused(ADMIN_TOKEN=""))

    def test_counter_addresses_that_are_none_are_refused(self) -> None:
        for url in ("counter:8000", "https://counter", "http://", "http://counter:port", "http://counter/path"):
            self.assertIn("COUNTER_URL", self.refused(COUNTER_URL=url), url)

    def test_a_short_or_missing_key_is_refused_without_showing_it(self) -> None:
        self.key.write_text("secret")
        self.assertIn("at least 16", self.refused())
        self.assertNotIn("secret", self.refused())
        self.key.unlink()
        self.assertIn("cannot be read", self.refused())

    def test_a_site_file_must_have_a_title_and_a_known_theme(self) -> None:
        for text, word in (
            ("", "title"),
            ("title = 1", "title"),
            ('title = "t"\ntheme = "pink"', "theme"),
            ("=", "read"),
        ):
            self.site.write_text(text)
            self.assertIn(word, self.refused(), text)


if __name__ == "__main__":
    unittest.main()
