"""What a command on this machine is told of the services that it checks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from lyra_tasks.checks.commands import build_address_variables
from lyra_tasks.config.models import Service


def running(host: str) -> Any:
    """A service that answers at `host`."""
    service = Service.model_validate({"image": "web", "ports": {"http": 8080, "dns": "53/udp"}})
    return SimpleNamespace(planned=SimpleNamespace(service=service), address=lambda port: (host, 49153))


def test_the_addresses_of_an_engine_that_has_ipv6_alone_are_in_brackets() -> None:
    assert build_address_variables({"web": running("2001:db8::7")}) == {
        "LYRA_WEB_HTTP_ADDR": "[2001:db8::7]:49153",
        "LYRA_WEB_HTTP_URL": "http://[2001:db8::7]:49153",
        "LYRA_WEB_DNS_ADDR": "[2001:db8::7]:49153",
    }
    assert build_address_variables({"web": running("10.0.0.7")})["LYRA_WEB_HTTP_URL"] == "http://10.0.0.7:49153"
