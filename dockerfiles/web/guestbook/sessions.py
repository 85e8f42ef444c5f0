"""A signed cookie with the visitor's name."""

from __future__ import annotations

import hashlib
import hmac
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from http.cookies import CookieError, SimpleCookie

COOKIE = "session"
LIFETIME = 30 * 24 * 3600  # seconds


def session_cookie(name: str, key: bytes, *, now: float | None = None) -> str:
    """Return the value of a Set-Cookie header for `name`."""
    expires = int(time.time() if now is None else now) + LIFETIME
    payload = f"{expires}.{urlsafe_b64encode(name.encode()).decode()}"
    return f"{COOKIE}={payload}.{_signature(payload, key)}; Max-Age={LIFETIME}; Path=/; HttpOnly; SameSite=Strict"


def visitor(header: str, key: bytes, *, now: float | None = None) -> str:
    """Return the name in a Cookie header, or an empty text if it is missing, expired or forged."""
    try:
        morsel = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    payload, _, signature = (morsel.value if morsel else "").rpartition(".")
    if not hmac.compare_digest(signature.encode(), _signature(payload, key).encode()):
        return ""
    expires, _, encoded = payload.partition(".")
    if int(expires) < (time.time() if now is None else now):
        return ""
    return urlsafe_b64decode(encoded).decode()


def _signature(payload: str, key: bytes) -> str:
    return hmac.new(key, payload.encode(), hashlib.sha256).hexdigest()
