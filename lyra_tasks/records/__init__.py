"""Persisted documents, each with a schema version (journal, images, evidence, ...); may import base modules only."""
