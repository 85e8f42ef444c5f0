"""Whatever a document contains, its reader ends with a value or with the error that is documented for it."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import lyra_tasks
from lyra_tasks.errors import ConfigurationError
from lyra_tasks.records.dev import UploadedFiles
from lyra_tasks.records.evidence import Metrics, TestsDocument
from lyra_tasks.records.record import Record
from tests.fuzz.mutations import json_documents
from tests.fuzz.readers import Reader, list_readers
from tests.fuzz.records import RECORDS
from tests.fuzz.run import fuzz_reader
from tests.thorough import keep_named

pytestmark = pytest.mark.slow

READ_WITH_THEIR_DIRECTORY: set[type[Record]] = {TestsDocument, Metrics, UploadedFiles}
"""Kinds of records that have readers of their own; evidence is a document of tests."""
READERS = {reader.name: reader for reader in list_readers()}


@pytest.mark.parametrize("name", keep_named(set(READERS) - {"journal entries"}, list(READERS)))
def test_damaged_document_ends_with_documented_error(name: str) -> None:
    assert fuzz_reader(READERS[name], examples=12, is_repeatable=True) > 0


@pytest.mark.thorough
@pytest.mark.parametrize("name", READERS)
def test_many_damaged_documents_end_with_documented_error(name: str) -> None:
    assert fuzz_reader(READERS[name], examples=100) > 0


def test_other_exception_or_nameless_document_fails() -> None:
    def read_unprotected(data: bytes, _: object) -> None:
        raise KeyError("name")

    def read_nameless(data: bytes, _: object) -> None:
        raise ConfigurationError("not valid")

    for read, place, failure in ((read_unprotected, "", KeyError), (read_nameless, "x.json", AssertionError)):
        with pytest.raises(failure):
            fuzz_reader(Reader("x", json_documents({"a": 1}), read, place), examples=2)


def test_each_persisted_record_is_read_damaged() -> None:
    for module in pkgutil.walk_packages(lyra_tasks.__path__, "lyra_tasks."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    assert _list_persisted(Record) - set(RECORDS) == READ_WITH_THEIR_DIRECTORY


def _list_persisted(kind: type[Record]) -> set[type[Record]]:
    """Return the kinds of records with a schema of their own, without those that only add to one for output."""
    below = set[type[Record]]().union(*(_list_persisted(derived) for derived in kind.__subclasses__()))
    return below | ({kind} if "schema_" in kind.__annotations__ else set())
