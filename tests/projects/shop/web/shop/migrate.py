"""Create or change the tables; run once before the shop starts."""

from __future__ import annotations

from shop.store import connect

MIGRATIONS = [
    "CREATE TABLE goods (id serial PRIMARY KEY, name text NOT NULL UNIQUE)",
]


def main() -> None:
    """Run all migrations that the database has not seen."""
    with connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS migrations (number integer PRIMARY KEY)")
        cursor.execute("SELECT count(*) FROM migrations")
        done = cursor.fetchone()[0]
        for number, statement in enumerate(MIGRATIONS[done:], done):
            cursor.execute(statement)
            cursor.execute("INSERT INTO migrations VALUES (%s)", (number,))
            print("migrated to", number + 1)


main()
