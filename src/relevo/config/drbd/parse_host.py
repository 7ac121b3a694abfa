"""Reads the sides of a resource: host sections, volumes, addresses."""

from __future__ import annotations

import ipaddress
import re

from relevo.config.drbd import options as known
from relevo.config.drbd.lexer import Kind, Token
from relevo.config.drbd.parse_options import OptionsParser
from relevo.config.drbd.places import Findings, Place, nearest, quoted
from relevo.config.drbd.stream import Lost, Stream
from relevo.config.drbd.tree import Address, Host, Proxy, Resource, Volume

MAX_HOSTS = 32
"""Host sections of one resource."""
MAX_NAMES = 32
"""Host names of one section."""
MAX_VOLUMES = 256
"""Volumes of one section."""
MAX_VOLUME = 65_535
MAX_MINOR = (1 << 20) - 1
_FAMILIES = frozenset({"ipv4", "ipv6", "ssocks", "sdp", "sci"})
_DEVICE = re.compile(r"/dev/drbd(?:(?P<minor>[0-9]{1,8})|_[^/]*)")
_OF_VOLUME = ("device", "disk", "meta-disk", "flexible-meta-disk")
_OF_HOST = (*_OF_VOLUME, "address", "alternate-link-address", "volume", "options", "proxy")


class HostParser:
    """Reads host sections and volumes from a stream.

    Args:
        stream: the tokens.
        found: where mistakes and warnings go.
        options: reads the sections of options.
    """

    def __init__(self, stream: Stream, found: Findings, options: OptionsParser) -> None:
        self._stream = stream
        self._found = found
        self._options = options

    def names(self, end: str, wanted: str) -> tuple[str, ...]:
        """Words up to a punctuation mark, at least one."""
        stream = self._stream
        found = [stream.string(wanted).value]
        while not stream.at(end):
            if len(found) >= MAX_NAMES:
                raise stream.lost(stream.next(), f"There are more than {MAX_NAMES} names.", "Remove some.")
            found.append(stream.string(f"{wanted} or {end!r}").value)
        stream.next()
        return tuple(found)

    def on(self, token: Token) -> Host:
        """`on NAMES { … }`; its `on` was taken."""
        host = Host("on", self.names("{", "a host name"), self._stream.place(token))
        self._host(host)
        return host

    def floating(self, token: Token) -> Host:
        """`floating ADDRESS { … }` or `floating ADDRESS;`."""
        stream = self._stream
        address = self.address()
        host = Host("floating", (str(address),), stream.place(token), address)
        if stream.at(";"):
            stream.next()
            return host
        stream.expect("{")
        self._host(host)
        return host

    def stacked(self, token: Token, resource: Resource) -> Host:
        """`stacked-on-top-of RESOURCE { … }`: its block is skipped, and the resource refused."""
        stream = self._stream
        below = stream.string("the name of a resource").value
        stream.expect("{")
        place = stream.place(token)
        if not stream.skip_block():
            raise stream.unexpected(stream.next(), "the end of stacked-on-top-of", "Add } at its end.")
        what = f"Resource {resource.name!r} is stacked on top of {below!r}: a mirror of a mirror is not supported here."
        resource.refusals.append((place, what, "Mirror between two servers, without stacked-on-top-of."))
        return Host("stacked", (below,), place)

    def address(self) -> Address:
        """`[FAMILY] ADDRESS:PORT`, up to and with the port."""
        stream = self._stream
        token = stream.next()
        place = stream.place(token)
        family = "ipv4"
        if token.kind is Kind.WORD and token.text in _FAMILIES:
            family = "ssocks" if token.text == "sci" else token.text
            if family == "ipv6":
                stream.expect("[")
            token = stream.next()
        wanted = Kind.IPV6 if family == "ipv6" else Kind.IPV4
        if token.kind is not wanted:
            remedy = "Write such as 192.168.0.27:7788, or ipv6 [fd00::1]:7788."
            raise stream.unexpected(token, f"an address ({family})", remedy)
        self._check_address(token)
        if family == "ipv6":
            stream.expect("]")
        stream.expect(":")
        port = stream.integer("a port")
        if not self._is_port(port.text):
            self._found.wrong(stream.place(port), f"There is no port {quoted(port.text)}.", "Write 1 to 65535.")
        return Address(family, token.text, port.text, place)

    def _check_address(self, token: Token) -> None:
        try:
            ipaddress.ip_address(token.text)
        except ValueError:
            what = f"{quoted(token.text)} is no address of a host."
            self._found.wrong(self._stream.place(token), what, "Write the numbers of one.")

    @staticmethod
    def _is_port(text: str) -> bool:
        return 1 <= known.number(text, known.COUNT) <= 65_535

    # ---- inside of a host --------------------------------------------------------------------------------------

    def _host(self, host: Host) -> None:
        stream = self._stream
        seen: set[str] = set()
        while not stream.at("}"):
            token = stream.next()
            if token.kind is Kind.END:
                raise stream.unexpected(token, "the end of a host section", "Add } at its end.")
            try:
                self._statement(host, token, seen)
            except Lost:
                stream.recover()
        stream.next()

    def _statement(self, host: Host, token: Token, seen: set[str]) -> None:
        stream = self._stream
        word = token.text if token.kind is Kind.WORD else ""
        if word in _OF_VOLUME or word in {"address", "alternate-link-address"}:
            # drbdadm takes a section disk for a second disk, and so refuses what it prints itself.
            options = word == "disk" and stream.at("{")
            self._once("the section disk" if options else word.removeprefix("flexible-"), token, seen)
        if word in _OF_VOLUME:
            self.volume_statement(self.implicit(host.volumes, token), token)
        elif word in {"address", "alternate-link-address"}:
            if host.kind == "floating":
                raise stream.lost(token, f"A floating host has no {word}.", "It stands before its {.")
            address = self.address()
            stream.expect(";")
            if word == "address":
                host.address = address
            else:
                host.alternate = address
                self._found.warn(stream.place(token), "alternate-link-address has no effect: one link is used.")
        elif word == "volume":
            self.volume(host.volumes)
        elif word == "options":
            stream.expect("{")
            host.options = self._options.section("options")
        elif word == "proxy":
            host.proxy = self._proxy()
            self._found.warn(stream.place(token), f"proxy has no effect: {known.NO_PROXY}.")
        else:
            self.stray(token, _OF_HOST, "a host section")

    def _once(self, word: str, token: Token, seen: set[str]) -> None:
        if word in seen:
            raise self._stream.lost(token, f"{word} is written twice in this host section.", "Remove one.")
        seen.add(word)

    def stray(self, token: Token, words: tuple[str, ...], where: str) -> None:
        """A word that begins no statement of a section: `node-id` is skipped, everything else a mistake."""
        stream = self._stream
        if token.kind is not Kind.WORD:
            raise stream.unexpected(token, f"a statement of {where}")
        if token.text == "node-id":
            stream.integer("a number")
            stream.expect(";")
            self._found.warn(stream.place(token), "node-id is of drbd 9 and has no effect: there are two nodes.")
            return
        if token.text in known.OF_DRBD_9:
            what = f"{token.text} is of drbd 9, this is read as drbd 8.4 reads it."
            remedy = "Write the address of each host in its own section: on NAME { address …; }."
            raise stream.lost(token, what, remedy if token.text.startswith("connection") else "Remove it.")
        raise stream.lost(token, f"{quoted(token.text)} has no place in {where}.", nearest(token.text, words))

    def _proxy(self) -> Proxy:
        stream = self._stream
        start = stream.next()
        if start.kind is not Kind.WORD or start.text != "on":
            raise stream.unexpected(start, "'on'")
        proxy = Proxy(self.names("{", "a host name"))
        while not stream.at("}"):
            token = stream.next()
            if token.kind is Kind.WORD and token.text in {"inside", "outside"}:
                address = self.address()
                stream.expect(";")
                setattr(proxy, token.text, address)
            elif token.kind is Kind.WORD and token.text == "options":
                stream.expect("{")
                proxy.options = self._options.section("proxy")
            else:
                raise stream.unexpected(token, "inside, outside or options")
        if proxy.inside is None or proxy.outside is None:
            raise stream.lost(start, "A proxy needs inside and outside.", "Add the address that is missing.")
        stream.next()
        return proxy

    # ---- volumes -----------------------------------------------------------------------------------------------

    def implicit(self, volumes: list[Volume], token: Token) -> Volume:
        """Volume 0 of a section that numbers none."""
        if not volumes:
            volumes.append(Volume(0, self._stream.place(token), implicit=True))
        elif not volumes[0].implicit:
            what = f"{token.text} stands outside of the numbered volumes of this section."
            raise self._stream.lost(token, what, "Put it into one of them.")
        return volumes[0]

    def volume(self, volumes: list[Volume]) -> None:
        """`volume N { … }`; its `volume` was taken."""
        stream = self._stream
        token = stream.integer("the number of a volume")
        if not token.text.isdigit() or int(token.text) > MAX_VOLUME:
            raise stream.lost(token, f"There is no volume {quoted(token.text)}.", f"Write 0 to {MAX_VOLUME}.")
        volume = Volume(int(token.text), stream.place(token))
        if len(volumes) >= MAX_VOLUMES:
            raise stream.lost(token, f"There are more than {MAX_VOLUMES} volumes.", "Remove some.")
        if any(other.number == volume.number for other in volumes):
            raise stream.lost(token, f"Volume {volume.number} is there twice.", "Remove one.")
        if volumes and volumes[0].implicit:
            raise stream.lost(token, "A volume with a number stands beside one without.", "Number each volume.")
        stream.expect("{")
        while not stream.at("}"):
            statement = stream.next()
            if statement.kind is Kind.END:
                raise stream.unexpected(statement, "the end of a volume", "Add } at its end.")
            try:
                if statement.kind is Kind.WORD and statement.text in _OF_VOLUME:
                    self.volume_statement(volume, statement)
                else:
                    self.stray(statement, _OF_VOLUME, "a volume")
            except Lost:
                stream.recover()
        stream.next()
        volumes.append(volume)
        volumes.sort(key=lambda one: one.number)

    def volume_statement(self, volume: Volume, token: Token) -> None:
        """`device`, `disk`, `meta-disk` or `flexible-meta-disk`; its word was taken."""
        stream = self._stream
        if token.text == "disk" and stream.at("{"):
            stream.next()
            volume.disk_options = self._options.section("disk")
        elif token.text == "disk":
            volume.disk = stream.string("the path of a disk, or '{'").value
            stream.expect(";")
        elif token.text == "device":
            self._device(volume)
        else:
            self._meta_disk(volume, "flexible" if token.text == "flexible-meta-disk" else "")

    def _meta_disk(self, volume: Volume, index: str) -> None:
        stream = self._stream
        path = stream.string("'internal' or the path of a disk").value
        if path == "internal":
            index = "internal"
        elif not index and stream.at("["):
            stream.next()
            index = stream.integer("an index").text
            stream.expect("]")
        stream.expect(";")
        volume.meta_disk, volume.meta_index = path, index or "flexible"

    def _device(self, volume: Volume) -> None:
        """`device /dev/drbdN;`, `device NAME minor N;` or `device minor N;`."""
        stream = self._stream
        place = stream.place(stream.peek)
        name, minor = None, None
        if not stream.at("minor"):
            name = stream.string("a device such as /dev/drbd0, or 'minor'").value
            name = f"/dev/{name}" if name.startswith("drbd") else name
        if stream.at("minor"):
            stream.next()
            minor = self._minor(stream.integer("a minor number"))
        stream.expect(";")
        volume.device, volume.minor = name, minor
        if name is not None:
            self._check_device(volume, name, place)

    def _minor(self, token: Token) -> int:
        if token.text.isdigit() and int(token.text) <= MAX_MINOR:
            return int(token.text)
        what = f"There is no minor number {quoted(token.text)}."
        raise self._stream.lost(token, what, f"Write 0 to {MAX_MINOR}.")

    def _check_device(self, volume: Volume, name: str, place: Place) -> None:
        match = _DEVICE.fullmatch(name)
        wrong = self._found.wrong
        if match is None:
            wrong(place, f"{quoted(name)} is no name of a drbd device.", "Write such as /dev/drbd0.")
        elif match["minor"] is None:
            if volume.minor is None:
                wrong(place, f"{quoted(name)} says no minor number.", f"Write: device {name} minor N;")
        elif volume.minor is None:
            volume.minor = int(match["minor"])
        elif volume.minor != int(match["minor"]):
            what = f"{quoted(name)} and minor {volume.minor} are two different devices."
            wrong(place, what, f"Write: device /dev/drbd{volume.minor} minor {volume.minor};")
