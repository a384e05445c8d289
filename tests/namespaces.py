"""Two nodes on one machine, for tests: two network namespaces with a cable between them, as root.

``with nodes() as pair:`` makes them; a process that calls `enter` is on one. What is in
them sees no other network, and both share the disk.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass


def missing() -> str:
    """Why there can be no namespaces here; "" if there can be some."""
    if sys.platform != "linux" or shutil.which("ip") is None:
        return "network namespaces need Linux and the program ip (apt-get install iproute2)"
    if os.geteuid():
        return "network namespaces are made as root"
    probe = f"gansuite-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    if made.returncode:
        return f"network namespaces are not allowed here ({made.stderr.strip()})"
    subprocess.run(["ip", "netns", "del", probe], check=True)
    return ""


@dataclass(frozen=True)
class Node:
    """A namespace, its address and the name of its interface."""

    name: str
    address: str
    interface: str


def enter(name: str) -> None:
    """Have this process, and all that it starts, use the network of a node."""
    with open(f"/run/netns/{name}") as space:
        if ctypes.CDLL(None, use_errno=True).setns(space.fileno(), _NETWORK):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), name)


@contextlib.contextmanager
def nodes() -> Iterator[tuple[Node, Node]]:
    """Two nodes with a cable between them."""
    own = os.getpid()  # several tests at once
    pair = tuple(Node(f"gs{own}{k}", f"10.77.0.{i}", f"gs{own % 99999}{k}") for i, k in NUMBERED)
    a, b = pair

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    try:
        for node in pair:
            ip("netns", "add", node.name)
        ip("link", "add", a.interface, "type", "veth", "peer", "name", b.interface)
        for node in pair:
            ip("link", "set", node.interface, "netns", node.name)
            ip("-n", node.name, "addr", "add", f"{node.address}/24", "dev", node.interface)
            ip("-n", node.name, "link", "set", node.interface, "up")
            ip("-n", node.name, "link", "set", "lo", "up")
        yield a, b
    finally:
        for node in pair:
            subprocess.run(["ip", "netns", "del", node.name], capture_output=True)


NUMBERED = ((1, "a"), (2, "b"))
_NETWORK = 0x40000000  # CLONE_NEWNET
