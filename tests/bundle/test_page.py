"""`PROMOTION.md` has the operator's steps in the order of work, and its commands can be pasted into a shell."""

from __future__ import annotations

import re
import shlex
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from lyra_tasks.bundle.content.environment import PromotedService, render_env_example
from lyra_tasks.bundle.content.operating import render_operating_steps
from lyra_tasks.bundle.content.page import _head, _images, _rules
from lyra_tasks.bundle.diff import BundleDiff, Change
from lyra_tasks.bundle.format.manifest import Requirements, TestDouble
from lyra_tasks.records.evidence import Evidence, RuleResult, SetKey
from lyra_tasks.records.images import ImageOrigin
from tests.bundle.test_compose import services
from tests.bundle.test_receive_script import DIGESTS, MANIFEST, with_images

WEB = {
    "image": "web",
    "environment": {
        "TOKEN": {"secret": True, "required": True, "description": "opens the door"},
        "MOOD": {"required": True, "description": "how it feels"},
        "MODE": {"default": "fast", "description": "how it works"},
    },
    "secrets": {"key": {"path": "/run/key", "description": "turns the lock"}},
    "volumes": {"data": {"path": "/my $data", "description": "what is kept"}},
    "ports": {"http": 8080, "admin": 9000},
    "healthcheck": {"http": "GET /health?a=b&c"},
}
DNS = {"image": "web", "ports": {"dns": "53/udp", "http": 8080}, "environment": {"MOOD": {"required": True}}}


def steps(
    *promoted: PromotedService, signer: str = "", diff: BundleDiff | None = None
) -> dict[str, tuple[str, list[str]]]:
    """Return text and commands of each step by its title."""
    page = render_operating_steps(MANIFEST, promoted or services({"web": WEB, "dns": DNS}), signer, diff)
    sections = re.split(r"(?m)^## \d\. ", page)[1:]
    return {
        section.partition("\n")[0]: (section, "\n".join(re.findall(r"(?ms)^```\n(.*?)\n```$", section)).splitlines())
        for section in sections
    }


def test_steps_are_in_the_order_of_work() -> None:
    diff = BundleDiff("1.1.0", "1.2.0", (Change("environment", "web: MOOD", None, "required"),))
    found = steps(diff=diff)
    assert list(found) == [
        "Trust", "Load", "Configure", "Start", "Is it up", "Upgrade from 1.1.0", "Roll back", "Make room",
        "Is it the right one",
    ]  # fmt: skip
    assert "| environment | web: MOOD | - | required |" in found["Upgrade from 1.1.0"][0]


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_commands_are_valid_shell(shell: str) -> None:
    for _, commands in steps(signer="Ada o'Lovelace").values():
        script = "\n".join(commands)
        result = subprocess.run(
            [str(shutil.which(shell)), "-n"], input=script, text=True, capture_output=True, check=False
        )
        assert (result.returncode, result.stderr) == (0, ""), script


def test_signature_is_checked_by_hand_before_the_script_runs() -> None:
    found = steps(signer="Ada o'Lovelace")
    place, by_hand, by_script = (shlex.split(line) for line in (*found["Trust"][1][:2], *found["Load"][1]))
    assert place == ["SIGNERS=/path/to/allowed_signers"]
    assert by_hand[:3] == ["ssh-keygen", "-Y", "verify"]
    assert by_hand[by_hand.index("-I") + 1] == by_script[by_script.index("--signer") + 1] == "Ada o'Lovelace"
    assert by_script[:4] == ["sh", "receive.sh", "--allowed-signers", "$SIGNERS"]
    unsigned = steps()
    assert "Not signed" in unsigned["Trust"][0]
    assert unsigned["Load"][1] == ["sh receive.sh"]


def test_every_open_value_has_a_command() -> None:
    promoted = services({"web": WEB, "dns": DNS})
    commands = "\n".join(steps(*promoted)["Configure"][1])
    open_names = re.findall(r"(?m)^(\w+)=$", render_env_example(promoted))
    assert sorted(open_names) == ["DNS_HTTP_PUBLISH", "MOOD", "TOKEN", "WEB_KEY_FILE"]
    assert sorted(re.findall(r"(?m)^(?:ask|put) (\w+)", commands)) == sorted(open_names)
    assert commands.count("ask MOOD") == 1, "services share it"
    assert "MODE" not in commands


@pytest.mark.parametrize("shell", ["dash", "bash"])
@pytest.mark.parametrize("value", ["plain", " # $HOME 'it\\'s' \"\\a\\\\\" & ` ", "'", '"', "\\", "", "a  b"])
def test_typed_value_is_quoted_as_compose_reads_it(shell: str, value: str, tmp_path: Path) -> None:
    functions = [line for line in steps()["Configure"][1] if "() {" in line]
    script = "\n".join([*functions, "ask TOKEN    # opens the door"])
    command = [str(shutil.which(shell)), "-c", script]
    result = subprocess.run(command, input=f"{value}\n", cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "TOKEN: ", "")
    escaped = re.sub(r'["$\\]', r"\\\g<0>", value)
    assert (tmp_path / ".env").read_text() == f'TOKEN="{escaped}"\n'


def test_secret_file_has_owner_and_mode() -> None:
    _, commands = steps()["Configure"]
    assert "SECRETS=/etc/shop" in commands
    assert 'install -m 400 -o 10001 -g 10001 "$FILE" "$SECRETS"/web-key' in commands
    (root,) = services({"web": {**WEB, "user": "0"}})
    assert 'install -m 400 -o 0 -g 0 "$FILE" "$SECRETS"/web-key' in steps(root)["Configure"][1]
    (named,) = services({"web": {**WEB, "user": "app"}})
    (command,) = (line for line in steps(named)["Configure"][1] if line.startswith("install"))
    assert command.startswith('install -m 400 -o "$(docker run ') and command.endswith(
        ' -u)" "$FILE" "$SECRETS"/web-key'
    )
    text = steps()["Configure"][0]
    assert "relative paths of secret files from `deploy/`" in text and "No secret may lie in the bundle" in text


def test_each_port_has_a_line_to_try() -> None:
    _, commands = steps()["Is it up"]
    address = "$(docker compose port web 8080)"
    assert f"curl --fail --silent --show-error \"http://{address}\"'/health?a=b&c'" in commands
    assert any("/dev/tcp/" in line and "port web 9000" in line for line in commands)
    assert any("--protocol udp dns 53" in line for line in commands)
    assert any('"http://$(docker compose port dns 8080)/"' in line for line in commands)


@pytest.mark.parametrize("is_open", [True, False])
def test_line_for_a_port_without_http_connects(is_open: bool) -> None:
    (line,) = (line for line in steps()["Is it up"][1] if "/dev/tcp/" in line)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if is_open:
            server.listen()
        answer = f"docker() {{ [ \"$*\" = 'compose port web 9000' ] && echo 127.0.0.1:{server.getsockname()[1]}; }}"
        result = subprocess.run(["dash", "-c", f"{answer}\n{line}"], capture_output=True, text=True, check=False)
    assert (result.returncode == 0) == is_open, result.stderr


def test_backups_lie_outside_of_the_bundle_and_are_restored() -> None:
    found = steps()
    backup = shlex.split(next(line for line in found["Upgrade"][1] if " cp " in line and "compose" in line))
    restore = shlex.split(next(line for line in found["Roll back"][1] if " cp " in line))
    assert backup[-6:] == ["compose", "cp", "web:/my $data/.", "-", ">", "$BACKUP/web-data.tar"]
    assert restore[-6:] == ["compose", "cp", "-", "web:/my $data", "<", "$BACKUP/web-data.tar"]
    assert "docker volume rm shop_web-data" in found["Roll back"][1]
    (plain,) = services({"web": {"image": "web"}})
    assert not [line for line in steps(plain)["Roll back"][1] if " cp " in line or "volume rm" in line]


def test_page_counts_rules_of_the_test_as_its_report_does() -> None:
    tested = [RuleResult(rule="image.secrets", scope=scope, outcome="passed") for scope in ("a", "b")]
    evidence = Evidence(
        set=SetKey(images={}, test_doubles={}, effective_hash="e"), passed=True, run="r1", started_at="now", seconds=1,
        engine={}, checks=[], rules=tested, usage={},
    )  # fmt: skip
    fresh = RuleResult(rule="tests.fresh", scope="project", outcome="passed")
    assert "\n2 rule checks passed in the test, and 1 more at the promotion; " in _rules(evidence, [*tested, fresh])
    assert "\n2 rule checks passed in the test; " in _rules(evidence, tested)


def test_page_lists_platforms_of_all_images_only() -> None:
    (image,) = MANIFEST.images
    arm = image.model_copy(update={"platform": "linux/arm64"})
    door = image.model_copy(update={"name": "door"})
    proxima = Requirements(platforms=["linux/amd64", "linux/arm64"], min_engine="20.10")
    manifest = with_images(image, arm, manifest=MANIFEST.model_copy(update={"proxima": proxima}))
    assert "or newer on linux/amd64, linux/arm64.\n" in _head(manifest)
    assert "or newer on linux/amd64.\n" in _head(with_images(image, arm, door, manifest=manifest))


def test_page_names_archives_origins_and_test_doubles() -> None:
    (image,) = MANIFEST.images
    origin = ImageOrigin(reference="docker.io/library/redis:7", digest=DIGESTS[3], source="image")
    cache = image.model_copy(update={"name": "cache", "references": ["shop/cache:1"], "origin": origin})
    double = TestDouble(service="mail", reference="mailpit:1")
    manifest = with_images(image, cache, manifest=MANIFEST.model_copy(update={"test_doubles": [double]}))
    page = _images(manifest)
    assert f"`{manifest.archives[0].file}` (1000 B) has all images for linux/amd64." in page
    assert f"| shop/cache:1 | docker.io/library/redis:7 | `{DIGESTS[3]}` | image |" in page
    assert "Not included, since only tests run it:\n\n| service | image |\n|---|---|\n| mail | mailpit:1 |" in page
    own = _images(MANIFEST)
    assert "Third-party" not in own and "Not included" not in own


def test_value_that_is_made_of_others_is_set_after_them() -> None:
    tables = {
        "web": {
            "image": "web",
            "environment": {
                "DATABASE_URL": {"secret": True, "template": "postgres://app:${PASSWORD}@db/app"},
                "OTHER_URL": {"secret": True, "template": "http://a:${NOT_PROMOTED}@b/"},
            },
        },
        "db": {"image": "web", "environment": {"PASSWORD": {"secret": True}}},
    }
    commands = "\n".join(steps(*services(tables))["Configure"][1])
    address = "echo 'DATABASE_URL=postgres://app:${PASSWORD}@db/app' >> .env"
    assert commands.index("ask PASSWORD") < commands.index(address)
    assert "ask OTHER_URL" in commands
