"""Whatever a document contains, its reader ends with a value or with the error that is documented for it."""

from __future__ import annotations

import pytest

from lyra_tasks.errors import ConfigurationError
from tests.fuzz.mutations import json_documents
from tests.fuzz.readers import Reader, list_readers
from tests.fuzz.run import fuzz_reader

READERS = {reader.name: reader for reader in list_readers()}


@pytest.mark.parametrize("name", READERS)
def test_damaged_document_ends_with_documented_error(name: str) -> None:
    assert fuzz_reader(READERS[name], examples=100) > 0


def test_other_exception_or_nameless_document_fails() -> None:
    def read_unprotected(data: bytes, _: object) -> None:
        raise KeyError("name")

    def read_nameless(data: bytes, _: object) -> None:
        raise ConfigurationError("not valid")

    for read, place, failure in ((read_unprotected, "", KeyError), (read_nameless, "x.json", AssertionError)):
        with pytest.raises(failure):
            fuzz_reader(Reader("x", json_documents({"a": 1}), read, place), examples=2)
