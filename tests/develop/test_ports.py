"""The published ports of a development environment stay the same as long as nobody else uses them."""

from __future__ import annotations

import socket
from contextlib import closing

from lyra_tasks.config.models import Service
from lyra_tasks.develop.ports import _is_used, choose_ports


def service(**ports: int | str) -> Service:
    return Service.model_validate({"image": "web", "ports": ports})


SERVICES = {"web": service(http=80, dns="53/udp"), "api": service(http=80)}


def test_ports_depend_on_the_checkout_and_differ_from_each_other() -> None:
    first = choose_ports(SERVICES, {}, lambda _port, _candidate: True, "checkout-1")
    assert first == choose_ports(SERVICES, {}, lambda _port, _candidate: True, "checkout-1")
    assert first != choose_ports(SERVICES, {}, lambda _port, _candidate: True, "checkout-2")
    published = [number for ports in first.values() for number in ports.values()]
    assert len(set(published)) == 3
    assert all(20000 <= number < 32000 for number in published)


def test_previous_port_is_kept_unless_it_is_taken() -> None:
    previous = {"web": {"http": 23456}}
    kept = choose_ports(SERVICES, previous, lambda _port, _candidate: True, "x")
    assert kept["web"][80] == 23456
    moved = choose_ports(SERVICES, previous, lambda _port, candidate: candidate != 23456, "x")
    assert moved["web"][80] != 23456


def test_two_services_never_get_the_same_port() -> None:
    previous = {"web": {"http": 23456}, "api": {"http": 23456}}
    chosen = choose_ports(SERVICES, previous, lambda _port, _candidate: True, "x")
    assert chosen["web"][80] != chosen["api"][80]


def test_port_of_another_program_counts_as_used() -> None:
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert _is_used("127.0.0.1", 80, port)
    assert not _is_used("127.0.0.1", 80, port)
    assert not _is_used("192.0.2.1", 80, port), "of an address elsewhere it is not known"
