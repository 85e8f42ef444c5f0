"""Stages of Dockerfiles that are built as checks: plan, build, logs. Imports the lab and below."""
