"""What is persisted: journal, image records, evidence, each with a schema version."""
