"""What the image's HEALTHCHECK runs: an exception, and so exit code 1, unless `/healthz` answers 200."""

from urllib.request import urlopen

urlopen("http://127.0.0.1:8000/healthz", timeout=2).close()
