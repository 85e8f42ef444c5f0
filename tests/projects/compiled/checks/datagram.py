"""Send a datagram to the service, and hold what comes back against what is expected."""

import os
import socket
import sys

text, expected = sys.argv[1:]
host, port = os.environ["LYRA_SUMS_DATAGRAMS_ADDR"].split(":")
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
    client.settimeout(3)
    client.sendto(text.encode(), (host, int(port)))
    found = client.recv(64).decode().strip()
sys.exit(0 if found == expected else f"{found} came back, {expected} was expected")
