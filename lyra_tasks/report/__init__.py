"""Render report.html from the documents of a bundle or a run. Imports records and console only."""
