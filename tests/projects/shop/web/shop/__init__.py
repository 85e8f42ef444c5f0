"""A shop with its goods in PostgreSQL and a count of visits in Redis."""
