"""Check the journal: its own hash chain, and the entries of it that bundles hold.

Whoever may write the journal can compute a chain anew. The entries in a bundle were copied when it was promoted, and
each has the hash of everything before it; in a signed one, nobody without the key can change them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lyra_tasks import console
from lyra_tasks.bundle.format.checksums import read_checksums
from lyra_tasks.bundle.format.layout import JOURNAL_FILE, SIGNATURE_FILE
from lyra_tasks.bundle.format.manifest import read_small_file
from lyra_tasks.bundle.format.signature import identify_signing_key
from lyra_tasks.digests import sha256_hex
from lyra_tasks.documents import parse_json_object, translate_failures
from lyra_tasks.engine.objects.ownership import ENGINE_EVENT
from lyra_tasks.errors import BundleError, CheckFailedError, LyraError, PreconditionError
from lyra_tasks.files import STAGING_PREFIX, display_path
from lyra_tasks.records.journal import Journal
from lyra_tasks.results.overview import JournalCheck


@dataclass(frozen=True)
class BundledEntries:
    """The hashes of the journal entries in a bundle by number, and their runs; `checkouts` were named by them.

    `key` is the key that signed the bundle, empty for an unsigned one.
    """

    version: str
    key: str
    hashes: Mapping[int, str]
    runs: frozenset[str]
    checkouts: frozenset[str]

    @property
    def name(self) -> str:
        """Return the version, and who vouches for it."""
        return f"{self.version} (signed with the {self.key})" if self.key else f"{self.version} (not signed)"


def check_journal(journal: Journal, bundles: Path, project_id: str) -> JournalCheck:
    """Check the journal of a checkout against itself and against the bundles in a directory, signed ones first."""
    problems, compared, not_compared = journal.find_problems(archived=True), list[str](), dict[str, str]()
    hashes, runs, first = {}, set(), journal.first_seq
    with suppress(PreconditionError):  # a damaged archive is among the problems
        for entry in journal.all_entries():
            hashes[entry.seq] = entry.hash
            runs.add(entry.run)
    bundled = []
    for directory in _list_bundles(bundles):
        try:
            bundled.append(_read_bundled_entries(directory))
        except (LyraError, OSError) as error:
            reason = error.message if isinstance(error, LyraError) else str(error.strerror)
            not_compared[directory.name] = reason
    for entries in sorted(bundled, key=lambda item: (not item.key, item.version)):
        if (entries.checkouts and project_id not in entries.checkouts) or not (
            entries.checkouts or entries.runs & runs
        ):
            not_compared[entries.version] = "promoted from another checkout"
            continue
        compared.append(entries.name)
        problems += _compare(entries, hashes, first)
    return JournalCheck(str(journal.path), len(hashes), tuple(problems), tuple(compared), not_compared)


def show_journal_check(journal: Journal, bundles: Path, project_id: str) -> JournalCheck:
    """Show whether the journal is what was written; raise CheckFailedError with all problems."""
    check = check_journal(journal, bundles, project_id)
    is_printed = console.print_result(check)
    if not is_printed:
        for version, reason in check.not_compared.items():
            console.info(f"not compared with bundle {version}: {reason}")
    if check.problems:
        raise CheckFailedError(
            f"The journal was edited or damaged: {len(check.problems)} problem(s)",
            hint=f"Do not rely on {display_path(journal.path)}; `verify` tells which bundles are trustworthy, "
            "and the next command goes on from here and records a lost head",
            details=check.problems,
        )
    if not is_printed:
        console.print(f"{console.format_count(check.entries, 'entry')}, all unchanged and in order")
        for name in check.compared:
            console.print(f"the same as in bundle {name}")
        if not any("(signed" in name for name in check.compared):
            console.print("no signed bundle holds any of them: whoever may write here can replace all of it unnoticed")
    return check


def _list_bundles(bundles: Path) -> list[Path]:
    directories = sorted(bundles.iterdir()) if bundles.is_dir() else []
    return [path for path in directories if path.is_dir() and not path.name.startswith((STAGING_PREFIX, "."))]


def _read_bundled_entries(directory: Path) -> BundledEntries:
    """Read the journal entries in a bundle; raise BundleError if they are damaged, or not what its signature covers."""
    file = directory / JOURNAL_FILE
    data = read_small_file(file)
    key = ""
    if (directory / SIGNATURE_FILE).exists():
        key = identify_signing_key(directory)
        if not key or read_checksums(directory).get(JOURNAL_FILE) != sha256_hex(data):
            raise BundleError("its signature does not fit; see `verify`")
    hashes: dict[int, str] = {}
    runs, checkouts = set(), set()
    with translate_failures(lambda problem: BundleError(f"{JOURNAL_FILE}: {problem}")):
        for line in data.splitlines():
            entry = parse_json_object(line)
            hashes[int(entry["seq"])] = str(entry["hash"])
            runs.add(str(entry["run"]))
            if entry["event"] == ENGINE_EVENT:
                checkouts.add(str(entry["data"].get("checkout", "")))
    return BundledEntries(directory.name, key, hashes, frozenset(runs), frozenset(checkouts - {""}))


def _compare(entries: BundledEntries, hashes: Mapping[int, str], first: int) -> Iterator[str]:
    """Yield how the entries of a bundle differ from those of the journal, whose oldest one is `first`."""
    differing = sorted(seq for seq, digest in entries.hashes.items() if hashes.get(seq, digest) != digest)
    missing = sorted(seq for seq in entries.hashes.keys() - hashes.keys() if seq >= first)
    if differing:
        yield f"bundle {entries.name} holds other entries: {_format_numbers(differing)} were written anew since"
    if missing:
        yield f"bundle {entries.name} holds entries that are missing here: {_format_numbers(missing)}"


def _format_numbers(numbers: Iterable[int]) -> str:
    first, *rest = numbers
    return f"{first} to {rest[-1]}" if rest else str(first)
