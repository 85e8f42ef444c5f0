"""The sandbox's link to this machine, a pair of virtual interfaces, and what its way out must not reach."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network, collapse_addresses
from pathlib import Path
from typing import Any

from lyra_tasks.errors import EngineUnavailableError

# Inside its own network namespace every sandbox may use the same addresses: nobody outside routes to them.
BRIDGE_ADDRESS = IPv4Interface("10.215.0.1/24")
ADDRESS_POOL = IPv4Network("10.216.0.0/15")
POOL_PREFIX_LENGTH = 26
UPLINK_NAME = "up0"  # the end of the pair inside the sandbox
TAP_NETWORK = IPv4Network("10.215.1.0/24")  # between the sandbox's router and slirp4netns
RESOLVER_ADDRESS = str(TAP_NETWORK[3])  # where slirp4netns answers look-ups with what this machine's resolver says
RESOLV_CONF = Path("/etc/resolv.conf")
_LINK_LOCAL = IPv4Network("169.254.0.0/16")  # where clouds tell a machine its own credentials
_LINK_NETWORKS = tuple(
    IPv4Network(f"{prefix}.0/24") for prefix in ("10.214.0", "172.29.214", "192.168.214", "198.18.214")
)


@dataclass(frozen=True)
class Uplink:
    """The pair: `link` is this machine's end and has `gateway`, the sandbox's end has `address`."""

    link: str
    gateway: str
    address: str


def tool_environment(engine: Path) -> dict[str, str]:
    """The environment in which the unpacked `ip` and `iptables` find their libraries."""
    return {
        "PATH": f"{engine / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin",
        "LD_LIBRARY_PATH": str(engine / "lib"),
        "XTABLES_LIBDIR": str(engine / "xtables"),
        "LC_ALL": "C.UTF-8",
    }


def create_uplink(engine: Path, pid: int, owner: str) -> Uplink:
    """Join the network namespace of process `pid` to this machine's by a pair of interfaces that dies with it.

    Its name is free again then, and may soon be another sandbox's: the interface also says whose it is.
    """
    for link, subnet in list_free_links(_used_networks(engine)):
        if _interface_exists(link):
            continue
        gateway, address = (str(host) for host in subnet.hosts())
        # The kernel gives a name once only: whoever makes the interface also owns the subnet that goes with it.
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
                    "the sandbox engine's network link could not be made",
                    hint="this needs a kernel with veth interfaces, and the right to make them",
                    details=tuple(result.stderr.splitlines()[-3:]),
                )
        return Uplink(link=link, gateway=gateway, address=address)
    raise EngineUnavailableError(
        "no subnet is left for another sandbox engine", hint="end one that is not needed: engine.down in its project"
    )


def list_free_links(networks: Iterable[IPv4Network]) -> Iterator[tuple[str, IPv4Network]]:
    """Interface names and the subnets that go with them, without those that overlap what this machine uses."""
    used_networks = list(networks)
    for network in _LINK_NETWORKS:
        for number, subnet in enumerate(network.subnets(new_prefix=30)):
            if not any(subnet.overlaps(used_network) for used_network in used_networks):
                yield f"lyra{_LINK_NETWORKS.index(network)}-{number}", subnet


def list_blocked_networks(engine: Path) -> list[IPv4Network]:
    """What the way out does not lead to: this machine's addresses, networks behind its bridges, other sandboxes.

    It is everything where this machine has no way out itself: what is refused at once need not be waited for.
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
    """Remove this machine's end, and with it the other, if the kernel has not done so yet."""
    with suppress(OSError):
        if Path("/sys/class/net", link, "ifalias").read_text().strip() != owner:
            return
        _run_ip(engine, "link", "delete", link)


def _interface_exists(link: str) -> bool:
    return Path("/sys/class/net", link).exists()


def _is_internal(link: str, address: IPv4Interface) -> bool:
    """Whether an interface leads to this machine itself or to containers on it."""
    is_bridge = Path("/sys/class/net", link, "bridge").exists()
    return is_bridge or address.is_loopback or any(address in network for network in _LINK_NETWORKS)


def _has_resolver() -> bool:
    """Whether slirp4netns, which speaks IPv4 here, finds a server that it can ask for names."""
    try:
        return bool(re.search(r"(?m)^nameserver\s+\d+\.", RESOLV_CONF.read_text(errors="replace")))
    except OSError:
        return False


def _used_networks(engine: Path) -> Iterator[IPv4Network]:
    for route in _query_ip(engine, "route", "show", "table", "all"):
        if route.get("dst", "default") != "default":
            yield IPv4Network(route["dst"], strict=False)


def _query_ip(engine: Path, *arguments: str) -> list[dict[str, Any]]:
    """What `ip` says about IPv4; nothing if it fails."""
    entries: list[dict[str, Any]] = json.loads(_run_ip(engine, "-json", "-4", *arguments).stdout or "[]")
    return entries


def _run_ip(engine: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **tool_environment(engine)}
    return subprocess.run(
        [str(engine / "bin" / "ip"), *arguments], env=environment, capture_output=True, text=True, check=False
    )
