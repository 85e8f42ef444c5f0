"""The network link between a sandbox and this machine, and the networks that a sandbox must not reach."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network, collapse_addresses
from pathlib import Path
from typing import Any

from lyra_tasks.documents import parse_foreign_json, translate_failures
from lyra_tasks.errors import EngineUnavailableError, PreconditionError
from lyra_tasks.processes import create_environment, run_captured

# All sandboxes use the same addresses, each in its own network namespace; they are not routed outside.
BRIDGE_ADDRESS = IPv4Interface("10.215.0.1/24")
ADDRESS_POOL = IPv4Network("10.216.0.0/15")
POOL_PREFIX_LENGTH = 26
UPLINK_NAME = "up0"  # the end inside the sandbox
TAP_NETWORK = IPv4Network("10.215.1.0/24")  # between the sandbox's router and slirp4netns
RESOLVER_ADDRESS = str(TAP_NETWORK[3])  # where slirp4netns forwards DNS queries to this machine's resolver
RESOLV_CONF = Path("/etc/resolv.conf")
_LINK_LOCAL = IPv4Network("169.254.0.0/16")  # the metadata services of clouds, which give out credentials
_LINK_NETWORKS = tuple(map(IPv4Network, ("10.214.0.0/24", "172.29.214.0/24", "192.168.214.0/24", "198.18.214.0/24")))


@dataclass(frozen=True)
class Uplink:
    """A pair of virtual interfaces: `link` is this machine's end, with `gateway`; the sandbox's end has `address`."""

    link: str
    gateway: str
    address: str


def create_uplink(engine: Path, pid: int, owner: str) -> Uplink:
    """Link the network namespace of process `pid` to this machine's by a pair of interfaces that ends with it.

    The alias of the interface names its owner, because another sandbox may reuse the name.
    """
    destinations = {route.get("dst", "default") for route in _query_ip(engine, "route", "show", "table", "all")}
    used_networks = [IPv4Network(destination, strict=False) for destination in destinations - {"default"}]
    for link, subnet in list_free_links(used_networks):
        if _interface_exists(link):
            continue
        gateway, address = (str(host) for host in subnet.hosts())
        # Interface names are unique, so creating the interface also reserves its subnet.
        creation = _run_ip(engine, "link", "add", link, "type", "veth", "peer", "name", UPLINK_NAME, "netns", str(pid))
        if creation.returncode and _interface_exists(link):
            continue
        steps = [
            ["link", "set", link, "addrgenmode", "none"],
            ["link", "set", link, "alias", owner],
            ["addr", "add", f"{gateway}/{subnet.prefixlen}", "dev", link],
            ["link", "set", link, "up"],
        ]
        for result in (creation, *(_run_ip(engine, *step) for step in steps)):
            if result.returncode:
                raise EngineUnavailableError(
                    "Cannot create the network link of the private engine",
                    hint="Use a kernel with veth interfaces, and an account that may create them",
                    details=tuple(result.stderr.splitlines()[-3:]),
                )
        return Uplink(link=link, gateway=gateway, address=address)
    raise EngineUnavailableError(
        "No subnet is left for another private engine", hint="Run `engine.down` in another project"
    )


def list_free_links(networks: Iterable[IPv4Network]) -> Iterator[tuple[str, IPv4Network]]:
    """Yield interface names and their subnets, except those that overlap a network in use."""
    used_networks = list(networks)
    for index, network in enumerate(_LINK_NETWORKS):
        for number, subnet in enumerate(network.subnets(new_prefix=30)):
            if not any(subnet.overlaps(used_network) for used_network in used_networks):
                yield f"lyra{index}-{number}", subnet


def list_blocked_networks(engine: Path) -> list[IPv4Network]:
    """List what a sandbox must not reach: this machine's addresses, networks behind its bridges, other sandboxes.

    If this machine has no route to the outside, everything is blocked, so that connections fail at once.
    """
    addresses = [
        (link["ifname"], IPv4Interface(f"{entry['local']}/{entry['prefixlen']}"))
        for link in _query_ip(engine, "address", "show")
        for entry in link["addr_info"]
    ]
    uplinks = {route["dev"] for route in _query_ip(engine, "route", "show", "default")}
    internal = {name for name, address in addresses if name not in uplinks and _is_internal(name, address)}
    if all(name in internal for name, _ in addresses):
        return [IPv4Network("0.0.0.0/0")]
    resolver = [IPv4Network(RESOLVER_ADDRESS)] if not _has_resolver() else []
    own = [IPv4Network(address.ip) for _, address in addresses]
    bridged = [address.network for name, address in addresses if name in internal]
    tap = TAP_NETWORK.address_exclude(IPv4Network(RESOLVER_ADDRESS))
    return list(collapse_addresses([*tap, *resolver, _LINK_LOCAL, *_LINK_NETWORKS, *own, *bridged]))


def remove_uplink(engine: Path, link: str, owner: str) -> None:
    """Remove the pair of interfaces if the kernel has not removed it yet."""
    with suppress(OSError):
        if Path("/sys/class/net", link, "ifalias").read_text().strip() != owner:
            return
        _run_ip(engine, "link", "delete", link)


def _interface_exists(link: str) -> bool:
    return Path("/sys/class/net", link).exists()


def _is_internal(link: str, address: IPv4Interface) -> bool:
    """Return whether an interface leads to this machine itself or to containers on it."""
    is_bridge = Path("/sys/class/net", link, "bridge").exists()
    return is_bridge or address.is_loopback or any(address in network for network in _LINK_NETWORKS)


def _has_resolver() -> bool:
    """Return whether there is an IPv4 name server, the only kind that slirp4netns can use here."""
    try:
        return bool(re.search(r"(?m)^nameserver\s+\d+\.", RESOLV_CONF.read_text(errors="replace")))
    except OSError:
        return False


def _query_ip(engine: Path, *arguments: str) -> list[dict[str, Any]]:
    """Return what `ip` prints about IPv4; nothing if it fails."""
    output = _run_ip(engine, "-json", "-4", *arguments).stdout or "[]"
    with translate_failures(lambda problem: PreconditionError(f"Cannot read what `ip` prints: {problem}")):
        return [dict(entry) for entry in parse_foreign_json(output)]


def _run_ip(engine: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = create_environment({"LD_LIBRARY_PATH": str(engine / "lib"), "LC_ALL": "C.UTF-8"})
    return run_captured([engine / "bin" / "ip", *arguments], environment=environment)
