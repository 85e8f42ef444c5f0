"""Read request bodies, within limits."""

from __future__ import annotations

import json
from email.message import Message
from http import HTTPStatus
from io import BufferedIOBase
from urllib.parse import parse_qsl

LONGEST_BODY = 8192
FORM = "application/x-www-form-urlencoded"
JSON = "application/json"


class RequestError(Exception):
    """The request cannot be served; with a status and a text for the visitor."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def read_fields(headers: Message, stream: BufferedIOBase) -> object:
    """Return the form or JSON document of a request body; raise RequestError if it is too large or malformed."""
    length = _length(headers)
    kind = headers.get_content_type()
    if kind not in (FORM, JSON):
        raise RequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"send {FORM} or {JSON}")
    body = stream.read(length)
    if len(body) < length:
        raise RequestError(HTTPStatus.BAD_REQUEST, "the body is shorter than its Content-Length")
    try:
        text = body.decode()
        return json.loads(text) if kind == JSON else _form(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(HTTPStatus.BAD_REQUEST, "the body is malformed") from error


def _length(headers: Message) -> int:
    length = headers.get("Content-Length", "")
    if not (length.isascii() and length.isdigit()) or "Transfer-Encoding" in headers:
        raise RequestError(HTTPStatus.LENGTH_REQUIRED, "send a Content-Length")
    if len(length) > 9 or int(length) > LONGEST_BODY:
        raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"send at most {LONGEST_BODY} bytes")
    return int(length)


def _form(text: str) -> dict[str, str]:
    pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=8)
    if len(fields := dict(pairs)) != len(pairs):
        raise ValueError("a field is given twice")
    return fields
