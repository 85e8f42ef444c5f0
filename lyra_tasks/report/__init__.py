"""report.html: one page that stands alone, out of the documents of a bundle or of a run."""
