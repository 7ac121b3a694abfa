"""`relevo check --links` between two servers: right, a smaller MTU on one side, a silent way, swapped cables."""

from __future__ import annotations

from relevo.lab.lab import Lab


def check(lab: Lab) -> tuple[int, str]:
    done = lab.run("nodo1", ["sh", "-c", "exec 2>&1; relevo check --links"], capture=True)
    return done.returncode, done.stdout.decode()


def test_what_is_sent_arrives_or_why_not(lab: Lab) -> None:
    code, text = check(lab)
    assert (code, text.count("reaches nodo2"), text.count("MTU 1500")) == (0, 2, 2), text
    lab.run("nodo2", ["ip", "link", "set", "eth1", "mtu", "1400"], check=True)
    code, text = check(lab)
    assert (code, text.count("reaches nodo2"), "none of 1500 bytes" in text) == (1, 1, True), text
    lab.cut("nodo2", "eth0")
    code, text = check(lab)
    assert (code, "does not answer over eth0" in text) == (1, True), text
    lab.heal("nodo2", "eth0")
    for command in (
        "ip link set eth1 mtu 1500",
        "ip address flush dev eth0; ip address flush dev eth1",  # nodo2's cables the other way round
        "ip address add 192.168.0.28/24 dev eth1; ip address add 10.27.0.2/24 dev eth0",
    ):
        lab.run("nodo2", ["sh", "-ec", command], check=True)
    code, text = check(lab)
    assert (code, "are the cables swapped?" in text) == (1, True), text
