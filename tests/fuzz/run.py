"""Read many damaged documents with every reader and count them: `./inv fuzz --examples N`."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings

from lyra_tasks.errors import LyraError
from tests.fuzz.readers import Reader, list_readers

DEFAULT_EXAMPLES = 2500
_EXIT_CODES = {2, 3, 5, 6}
_MAX_MESSAGE_CHARS = 2000
_MAX_TRACEBACK_CHARS = 4000


def fuzz_reader(reader: Reader, examples: int, *, is_repeatable: bool = False) -> int:
    """Read so many damaged documents; return their number, or raise the exception that no reader may raise.

    Documents are random, unless `is_repeatable`.
    """
    count = 0

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=is_repeatable,
        suppress_health_check=list(HealthCheck),
    )
    @given(reader.contents)
    def read(content: Any) -> None:
        nonlocal count
        count += 1
        _read_content(reader, content)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Generating overly large repr")  # of a document, after a failure
        read()
    return count


def _read_content(reader: Reader, content: Any) -> None:
    """Read content in an empty directory; only a LyraError passes, and it must name the document."""
    directory = Path(tempfile.mkdtemp(prefix="lyra-fuzz-"))
    try:
        reader.read(content, directory)
    except LyraError as error:
        texts = [error.message, *error.details]
        assert error.message and error.exit_code in _EXIT_CODES
        assert reader.place in " ".join(texts), texts
        assert all(len(text) <= _MAX_MESSAGE_CHARS for text in texts), texts
    finally:
        shutil.rmtree(directory)


def main() -> int:
    """Run all readers and show a line for each; return 1 if one has raised another exception than its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=DEFAULT_EXAMPLES)
    parser.add_argument("--only", default="", help="run only readers whose names contain this text")
    options = parser.parse_args()
    warnings.simplefilter("error")  # as in the tests
    warnings.simplefilter("ignore", ResourceWarning)
    total = failures = 0
    begun = time.monotonic()
    for reader in list_readers():
        if options.only not in reader.name:
            continue
        started = time.monotonic()
        try:
            count = fuzz_reader(reader, options.examples)
            total += count
            outcome = f"{count} documents"
        except Exception:
            print(traceback.format_exc()[-_MAX_TRACEBACK_CHARS:], file=sys.stderr)
            failures += 1
            outcome = "failed"
        print(f"{reader.name:36} {outcome:>18} {time.monotonic() - started:7.1f} s", flush=True)
    print(f"{total} documents, {failures} readers with other exceptions, {time.monotonic() - begun:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
