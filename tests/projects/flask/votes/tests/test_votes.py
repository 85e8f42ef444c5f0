"""The application with a store in memory."""

from __future__ import annotations

import unittest
from collections import Counter

from redis import RedisError
from votes import create_app


class MemoryStore:
    """Counts as Redis does."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.broken = False

    def ping(self) -> bool:
        if self.broken:
            raise RedisError("gone")
        return True

    def hgetall(self, name: str) -> dict[str, str]:
        self.ping()
        return {key: str(count) for key, count in self.counts.items()}

    def hincrby(self, name: str, key: str, amount: int = 1) -> int:
        self.counts[key] += amount
        return self.counts[key]


class Votes(unittest.TestCase):
    """What a browser would see."""

    def setUp(self) -> None:
        self.store = MemoryStore()
        self.client = create_app(self.store).test_client()

    def test_a_vote_is_counted(self) -> None:
        self.assertEqual(self.client.post("/votes/tea").status_code, 201)
        self.assertEqual(self.client.get("/votes").get_json(), {"tea": 1, "coffee": 0})

    def test_one_cannot_vote_for_what_is_not_offered(self) -> None:
        self.assertEqual(self.client.post("/votes/water").status_code, 404)
        self.assertEqual(self.store.counts, {})

    def test_without_the_store_it_is_not_well_and_says_so(self) -> None:
        self.store.broken = True
        for path in ("/healthz", "/votes"):
            self.assertEqual(self.client.get(path).status_code, 503)


if __name__ == "__main__":
    unittest.main()
