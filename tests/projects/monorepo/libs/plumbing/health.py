"""Ask the service on this machine whether it answers."""

from __future__ import annotations

from urllib.request import urlopen

assert urlopen("http://127.0.0.1:8000/health", timeout=3).status == 200
