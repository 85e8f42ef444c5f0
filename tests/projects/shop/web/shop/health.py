"""Ask the shop on this machine whether it works."""

from __future__ import annotations

from urllib.request import urlopen

assert urlopen("http://127.0.0.1:8000/healthz", timeout=3).status == 200
