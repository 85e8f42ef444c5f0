"""Suites: programs that report many tests, each of which is a check. Imports the lab and below."""
