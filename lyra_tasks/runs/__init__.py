"""Logs and resource usage of runs: `logs` and `stats`. Imports the lab and everything below it, no other step."""
