"""Find files of the user that hide a package which Lyra needs, such as a `docker.py` beside `tasks.py`."""

from __future__ import annotations

import sys
from pathlib import Path

from lyra_tasks.errors import PreconditionError
from lyra_tasks.files import display_path

IMPORTED_PACKAGES = frozenset(
    {
        "ahocorasick_rs", "docker", "e2b_dockerfile_utils", "isal", "jinja2", "pydantic", "python_on_whales",
        "requests", "rich", "semver", "toml", "watchfiles", "yaml",
    }
)  # fmt: skip
_PACKAGE_DIRECTORIES = ("site-packages", "dist-packages")


def require_own_modules() -> None:
    """Raise a PreconditionError that names a file which Python would import in place of a package.

    Invoke puts the directory of `tasks.py` in front of the search path.
    """
    for directory in map(Path, sys.path):
        if directory.name in _PACKAGE_DIRECTORIES:
            return
        try:
            paths = list(directory.iterdir())
        except OSError:
            continue
        for path in paths:
            if path.stem in IMPORTED_PACKAGES and (path.suffix == ".py" or (path / "__init__.py").is_file()):
                raise PreconditionError(
                    f"{display_path(path)} hides the package {path.stem}, which Lyra imports",
                    hint=f"Rename it, for example to my_{path.name}",
                )
