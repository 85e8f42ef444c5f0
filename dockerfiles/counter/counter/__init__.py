"""A counter of visits: `POST /hits` adds one, `GET /hits` returns the number."""
