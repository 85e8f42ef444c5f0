"""The database and the cache."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import psycopg2
import redis


def connect() -> Any:
    """Connect to the database, with the password in a file."""
    password = Path(os.environ["DATABASE_PASSWORD_FILE"]).read_text().strip()
    return psycopg2.connect(os.environ["DATABASE_URL"], password=password, connect_timeout=3)


def cache() -> Any:
    """Connect to Redis."""
    return redis.Redis.from_url(os.environ["REDIS_URL"], socket_timeout=3)
