"""Read documents that somebody else may have written: within limits, validated, and with one kind of failure.

A reader does everything that depends on the content, up to the validation, in a `translate_failures` block. Whatever
the content causes there, a `RecursionError` or a missing key included, becomes the one error that its caller knows.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lyra_tasks.errors import LyraError, is_disk_full, name_unreadable_file

MAX_DOCUMENT_BYTES = 16 * 1024**2
MAX_DEPTH = 64
"""Levels of nesting: far more than any document needs, far fewer than the interpreter's stack has."""
_MAX_VALUES = 5_000_000
_MAX_INTEGER = 2**63 - 1
_MAX_PROBLEM_CHARS = 200
_SURROGATE = re.compile("[\ud800-\udfff]")
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_TOML_TEXT = re.compile(
    r'"""(?:[^"\\]|\\.|"{1,2}(?!"))*+"{3,5}'
    r"|'''(?:[^']|'{1,2}(?!'))*+'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*+"'
    r"|'[^'\n]*+'"
    r"|\#[^\n]*+",
    re.DOTALL,
)


class DocumentError(Exception):
    """A document is beyond a limit, or not in its format; `line` is 0 if it is unknown."""

    def __init__(self, problem: str, line: int = 0) -> None:
        super().__init__(problem)
        self.line = line


@contextmanager
def translate_failures(create_error: Callable[[str], LyraError]) -> Iterator[None]:
    """Turn any failure of the block into the error that `create_error` makes of its description.

    A `LyraError` and a full disk pass as they are.
    """
    try:
        yield
    except LyraError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and is_disk_full(error):
            raise
        raise create_error(describe_failure(error)) from error


def describe_failure(error: Exception) -> str:
    """Return what is wrong with the document that caused an exception, in one line without its values."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return "not valid UTF-8"
    if isinstance(error, UnicodeEncodeError):
        return "a character is not valid Unicode"
    if isinstance(error, MemoryError | OverflowError) or "set_int_max_str_digits" in str(error):
        return "a value is out of range"
    if isinstance(error, KeyError):
        return f"{quote_value(error.args[0] if error.args else '')} is missing"
    if isinstance(error, OSError):
        return error.strerror or "damaged"
    if isinstance(error, subprocess.CalledProcessError):
        return f"exit code {error.returncode}"
    if isinstance(error, subprocess.TimeoutExpired):
        return "it did not end in time"
    if isinstance(error, TypeError | AttributeError | IndexError):
        return "a value has the wrong type"
    if hasattr(error, "errors") and type(error).__name__ == "ValidationError":
        return describe_validation_error(error)
    return shorten(str(error)) or "damaged"


def describe_validation_error(error: Any) -> str:
    """Return place and text of the first problem that pydantic found."""
    problem = error.errors(include_url=False, include_input=False)[0]
    place = shorten(".".join(map(str, problem["loc"])))
    return f"{place or 'document'}: {shorten(problem['msg'])}"


def quote_value(value: object) -> str:
    """Return a key or name from a document for a message: in quotes, printable, of a limited length."""
    return f"`{shorten(str(value))}`"


def read_document(path: Path, max_bytes: int = MAX_DOCUMENT_BYTES) -> bytes:
    """Return the content of a regular file; DocumentError if it is none or larger than `max_bytes`, or OSError."""
    # opening a FIFO without a writer would block without O_NONBLOCK
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise DocumentError("not a regular file")
        with name_unreadable_file(path), os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(max_bytes + 1)
    finally:
        os.close(descriptor)
    require_size(data, max_bytes)
    return data


def require_size(data: bytes | str, max_bytes: int = MAX_DOCUMENT_BYTES) -> None:
    """Raise DocumentError for a document of more than `max_bytes`."""
    if len(data) > max_bytes:
        size = f"{max_bytes // 1024**2} MiB" if max_bytes >= 1024**2 else f"{max_bytes} bytes"
        raise DocumentError(f"larger than {size}")


def parse_json(data: bytes | str, *, max_bytes: int = MAX_DOCUMENT_BYTES, max_depth: int = MAX_DEPTH) -> Any:
    """Return the value of a JSON document, which has neither repeated keys nor numbers that others cannot read.

    Raises DocumentError.
    """
    text = _decode(data, max_bytes)
    value = _parse_json(text, _STRICT_DECODER, max_depth)
    if _SURROGATE_ESCAPE.search(text) and _SURROGATE.search(json.dumps(value, ensure_ascii=False)):
        raise DocumentError("a character is not valid Unicode")
    return value


def parse_json_object(data: bytes | str, *, max_bytes: int = MAX_DOCUMENT_BYTES) -> dict[str, Any]:
    """Return the value of a JSON document as `parse_json` does; DocumentError if it is not an object."""
    value = parse_json(data, max_bytes=max_bytes)
    if not isinstance(value, dict):
        raise DocumentError("not a JSON object")
    return value


def parse_foreign_json(data: bytes | str, *, max_bytes: int = MAX_DOCUMENT_BYTES, max_depth: int = MAX_DEPTH) -> Any:
    """Return the value of JSON that another program wrote, as leniently as Python reads it.

    Of repeated keys the last one counts, and texts may have lone surrogates. Raises DocumentError.
    """
    return _parse_json(_decode(data, max_bytes), _LENIENT_DECODER, max_depth)


def _decode(data: bytes | str, max_bytes: int) -> str:
    require_size(data, max_bytes)
    if isinstance(data, str):
        return data
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise DocumentError("not valid JSON: not valid UTF-8", data.count(b"\n", 0, error.start) + 1) from error


def _parse_json(text: str, decoder: json.JSONDecoder, max_depth: int) -> Any:
    try:
        value = decoder.decode(text)
    except json.JSONDecodeError as error:
        raise DocumentError(f"not valid JSON: {error.msg}", error.lineno) from error
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"not valid JSON: {describe_failure(error)}") from error
    if text.count("[") + text.count("{") > max_depth:
        require_depth(value, max_depth)
    return value


def parse_toml(text: str, *, max_depth: int = MAX_DEPTH) -> dict[str, Any]:
    """Return the values of a TOML document; raise DocumentError, or ValueError as `tomllib` does."""
    import tomllib

    require_short_keys(text, max_depth)
    try:
        value = tomllib.loads(text)
    except RecursionError as error:
        raise DocumentError("nested too deeply") from error
    require_depth(value, max_depth)
    return value


def require_short_keys(text: str, max_depth: int = MAX_DEPTH) -> None:
    """Raise DocumentError for a dotted key of too many parts, which `tomllib` takes quadratic time for."""
    if not any(line.count(".") >= max_depth for line in text.splitlines()):
        return
    # without strings and comments, but with all line breaks
    plain = _TOML_TEXT.sub(lambda match: '"' + "\n" * match[0].count("\n"), text)
    for number, line in enumerate(plain.split("\n"), 1):
        if line.count(".") >= max_depth:
            raise DocumentError("nested too deeply", number)


def parse_yaml(text: str, *, max_depth: int = MAX_DEPTH, ignored_tags: Iterable[str] = ()) -> tuple[Any, Any]:
    """Return the value of a YAML document, and its tree of nodes; raise DocumentError with the line.

    Aliases may repeat a value, but not without limit. A value with one of `ignored_tags` is read as if it had none.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_object(self, node: Any, deep: bool = False) -> Any:
            line = node.start_mark.line + 1
            try:
                value = super().construct_object(node, deep)
            except (yaml.YAMLError, RecursionError, DocumentError):
                raise
            except Exception as error:
                raise DocumentError(f"not a valid value of {node.tag.rpartition(':')[2]}", line) from error
            if isinstance(value, str) and _SURROGATE.search(value):
                raise DocumentError("a character is not valid Unicode", line)
            return value

        def construct_untagged(self, node: Any) -> Any:
            if isinstance(node, yaml.MappingNode):
                return self.construct_mapping(node, deep=True)
            return self.construct_sequence(node, deep=True) if isinstance(node, yaml.SequenceNode) else node.value

    for tag in ignored_tags:
        Loader.add_constructor(tag, Loader.construct_untagged)
    try:
        loader = Loader(text)
        tree = loader.get_single_node()
        value = loader.construct_document(tree) if tree is not None else None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = shorten(getattr(error, "problem", "") or "not readable")
        raise DocumentError(f"not valid YAML: {problem}", mark.line + 1 if mark else 0) from error
    except RecursionError as error:
        raise DocumentError("recursive or nested too deeply") from error
    require_depth(value, max_depth)
    return value, tree


def require_depth(value: object, max_depth: int = MAX_DEPTH) -> None:
    """Raise DocumentError for a value that is nested too deeply, contains itself, or repeats others without end."""
    level: list[Any] = [value]
    count = 0
    for _ in range(max_depth + 1):
        level = [container for container in level if isinstance(container, dict | list)]
        count += sum(map(len, level))
        if not level:
            return
        if count > _MAX_VALUES:
            break
        level = [child for container in level for child in _list_children(container)]
    raise DocumentError("recursive or nested too deeply")


def _list_children(container: dict[Any, Any] | list[Any]) -> Iterable[Any]:
    return container.values() if isinstance(container, dict) else container


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        ((repeated, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"duplicate key {repeated!a}")
    return value


def _parse_integer(text: str) -> int:
    if len(text) > len(str(_MAX_INTEGER)) + 1 or abs(value := int(text)) > _MAX_INTEGER:
        raise ValueError("a number is out of range")
    return value


def _parse_float(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError("a number is out of range")
    return value


def _reject_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def shorten(text: str) -> str:
    """Return a text from a document for a message: in one line, printable, of a limited length."""
    text = _printable(" ".join(text.split())[: _MAX_PROBLEM_CHARS + 1])
    return text if len(text) <= _MAX_PROBLEM_CHARS else f"{text[:_MAX_PROBLEM_CHARS]}…"


_STRICT_DECODER = json.JSONDecoder(
    object_pairs_hook=_reject_duplicates,
    parse_int=_parse_integer,
    parse_float=_parse_float,
    parse_constant=_reject_constant,
)
_LENIENT_DECODER = json.JSONDecoder()


def find_comment_above(lines: Sequence[str], line_number: int) -> str:
    """Return the comment directly above a line (counted from 1) of a document with `#` comments, as one line."""
    comment_lines: list[str] = []
    for line in reversed(lines[: line_number - 1]):
        text = line.strip()
        if not text.startswith("#") or "=" in text.split(" ")[0] or text.lower().startswith(("# syntax", "# escape")):
            break
        comment_lines.insert(0, text.lstrip("# ").rstrip())
    return " ".join(text for text in comment_lines if text)
