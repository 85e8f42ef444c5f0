"""Counts visits: `POST /hits` adds one, `GET /hits` tells how many there were."""
