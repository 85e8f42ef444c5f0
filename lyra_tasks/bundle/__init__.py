"""Promotion bundles, which carry tested images to Proxima; the task modules alone import this package."""
