"""A secret that programs print in other spellings stays out of everything that a test run writes and prints."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

from tests.conftest import Project
from tests.engine.test_faults_lab import only_checks
from tests.test_spellings import SECRETS, SPELLINGS

REMAINS = ("Hx72", "zz&", "zz\\u0026", "48783732", "plain0", "canary1")
"""Parts of the secrets that no spelling may leave."""


def test_spelled_secrets_are_nowhere_after_a_test_run(tiny: Project) -> None:
    tiny.replace(".lyra.toml", "secret = true,", f"secret = true, test_value = {json.dumps(SECRETS[0])},")
    tiny.replace(
        ".lyra.toml",
        "[services.web.secrets.key]\n",
        "".join(
            f"[services.web.environment.TOKEN{number}]\nsecret = true\ntest_value = {json.dumps(secret)}\n"
            'description = "one more"\n\n'
            for number, secret in enumerate(SECRETS[1:], start=1)
        )
        + "[services.web.secrets.key]\n",
    )
    printed = "".join(f"{spell(secret)}\n" for secret in SECRETS for spell in SPELLINGS.values())
    # a service's answer may also hold what acts on a terminal, and what XML cannot contain
    (tiny.root / "printed.txt").write_text(f"\uffff\x1b[8m\u202e\n{printed}", encoding="utf-8")
    only_checks(
        tiny,
        'name = "run"\nrun = "cat printed.txt; exit 1"',
        'name = "exec"\nservice = "web"\nexec = ["/bin/sh", "-c", "echo $TOKEN $TOKEN1; exit 1"]',
        'name = "log"\nservice = "web"\nlog = "^never"\ntimeout = "100ms"',
    )
    result = tiny.lyra("build", "test")
    assert result.code == 5, result.text
    assert "***" in result.text
    assert "\x1b[8m" not in result.text and "\u202e" not in result.text
    files = [path for place in (tiny.root / ".lyra", tiny.state) for path in place.rglob("*") if path.is_file()]
    assert {"tests.xml", "tests.json", "report.html", "output.log"} <= {path.name for path in files}
    for path in files:
        if path.name == "tests.xml":
            ET.parse(path)
    written = {str(path): path.read_bytes().decode(errors="replace") for path in files}
    for name, text in {**written, "terminal": result.text}.items():
        assert [part for part in REMAINS if part in text] == [], name
