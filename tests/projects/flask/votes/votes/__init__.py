"""Votes over HTTP, counted in Redis."""

from __future__ import annotations

import os
from typing import Any, Protocol

from flask import Flask
from flask.typing import ResponseReturnValue
from redis import Redis, RedisError

KEY = "votes"


class Store(Protocol):
    """The part of Redis that is used."""

    def ping(self) -> Any: ...
    def hgetall(self, name: str) -> Any: ...
    def hincrby(self, name: str, key: str, amount: int = 1) -> Any: ...


def create_app(store: Store | None = None) -> Flask:
    """The application, by default with the store that the environment names."""
    votes = store or Redis.from_url(os.environ["STORE_URL"], decode_responses=True, socket_timeout=2)
    choices = os.environ.get("CHOICES", "tea,coffee").split(",")
    app = Flask(__name__)

    @app.get("/votes")
    def show() -> ResponseReturnValue:
        counted = votes.hgetall(KEY)
        return {choice: int(counted.get(choice, 0)) for choice in choices}

    @app.post("/votes/<choice>")
    def vote(choice: str) -> ResponseReturnValue:
        if choice not in choices:
            return {"error": f"there is no {choice}"}, 404
        return {choice: votes.hincrby(KEY, choice)}, 201

    @app.get("/healthz")
    def health() -> ResponseReturnValue:
        votes.ping()
        return {"store": "well"}

    @app.errorhandler(RedisError)
    def no_store(error: RedisError) -> ResponseReturnValue:
        app.logger.error("the store does not answer: %s", error)
        return {"error": "the store does not answer"}, 503

    return app
