"""Registry client for pushing bundles. Imports only the base modules."""
