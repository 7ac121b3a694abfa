"""Reads a whole file: global, common, resources, skip, include. The grammar is in docs/internals/drbd-conf.md."""

from __future__ import annotations

from collections.abc import Callable

from relevo.config.drbd import options as known
from relevo.config.drbd.lexer import Kind, Lexed, Token
from relevo.config.drbd.options import Takes
from relevo.config.drbd.parse_host import MAX_HOSTS, HostParser
from relevo.config.drbd.parse_options import PLUGIN, OptionsParser
from relevo.config.drbd.places import Place, nearest, quoted
from relevo.config.drbd.resolve import inherit_volumes
from relevo.config.drbd.stream import Lost, Stream
from relevo.config.drbd.tree import Conf, Resource, Setting

MAX_RESOURCES = 1024
"""drbd itself takes as many minors as a site will ever have; this bounds the work for a wrong file."""
_TOP = ("global", "common", "resource", "skip", "include")
_SECTIONS = frozenset({"net", "startup", "handlers", "proxy", "options", "syncer"})
_OF_VOLUMES = frozenset({"device", "disk", "meta-disk", "flexible-meta-disk"})
_OF_RESOURCE = (
    *("protocol", "on", "floating", "net", "disk", "syncer", "startup", "handlers", "options", "proxy", "volume"),
    *("device", "meta-disk", "flexible-meta-disk", "ignore-on", "stacked-on-top-of"),
)
Include = Callable[[str, Place], None]


class FileParser:
    """Adds what one file says to a configuration.

    Args:
        lexed: the file's tokens.
        conf: what is added to.
        include: called with the pattern of an include statement and its place; reads those files at once.
    """

    def __init__(self, lexed: Lexed, conf: Conf, include: Include) -> None:
        self._conf = conf
        self._found = conf.found
        self._include = include
        self._stream = Stream(lexed, conf.found)
        self._options = OptionsParser(self._stream, conf.found)
        self._hosts = HostParser(self._stream, conf.found, self._options)

    def parse(self) -> None:
        """Read it all; mistakes are written down, and reading goes on behind each."""
        stream = self._stream
        while stream.peek.kind is not Kind.END:
            token = stream.next()
            try:
                self._top(token)
            except Lost:
                stream.recover()
                if stream.at("}"):
                    stream.next()

    def _top(self, token: Token) -> None:
        stream = self._stream
        match token.text if token.kind is Kind.WORD else "":
            case "global":
                stream.expect("{")
                self._global(token)
            case "common":
                stream.expect("{")
                self._common(token)
            case "resource":
                self._named_resource(token)
            case "skip":
                if not stream.at("{"):
                    stream.string("'{'")
                stream.expect("{")
                if not stream.skip_block():
                    raise stream.lost(token, "The file ends inside of this skip block.", "Add } at its end.")
            case "include":
                pattern = stream.string("a file name")
                stream.expect(";")
                self._include(pattern.value, stream.place(pattern))
            case word:
                if token.text == "}" and token.kind is Kind.PUNCTUATION:
                    remedy = "Remove it, or find the section above that ends too early."
                    raise stream.lost(token, "This } closes nothing.", remedy)
                if token.kind is not Kind.WORD:
                    raise stream.unexpected(token, f"one of {', '.join(_TOP)}")
                what = f"{quoted(word)} has no place outside of a resource."
                raise stream.lost(token, what, nearest(word, _TOP))

    # ---- global ------------------------------------------------------------------------------------------------

    def _global(self, start: Token) -> None:
        stream = self._stream
        if self._conf.settings:
            raise stream.lost(start, "There is a second section global.", "Put both into one.")
        if self._conf.resources:
            self._found.warn(stream.place(start), "global stands behind a resource: it should come first.")
        self._conf.settings.append(Setting("", None, stream.place(start)))
        while not stream.at("}"):
            token = stream.next()
            if token.kind is Kind.END:
                raise stream.unexpected(token, "the end of global", "Add } at its end.")
            try:
                self._conf.settings.append(self._global_option(token))
            except Lost:
                stream.recover()
        stream.next()

    def _global_option(self, token: Token) -> Setting:
        stream = self._stream
        meant = known.meant_by(token.text, "global") if token.kind is Kind.WORD else None
        if meant is None:
            if token.kind is not Kind.WORD:
                raise stream.unexpected(token, "an option of section global")
            what = f"The section global has no option {quoted(token.text)}."
            raise stream.lost(token, what, nearest(token.text, known.words_of("global")))
        option, value = meant.option, None
        if option.takes is Takes.NUMBER:
            number = stream.integer(f"a value of {option.name}")
            self._options.check(option, number, number.text)
            value = number.text
        elif option.takes is Takes.CHOICE:
            word = stream.next()
            if word.text not in option.choices:
                raise stream.unexpected(word, f"one of {', '.join(option.choices)}")
            value = word.text
        stream.expect(";")
        return Setting(option.name, value, stream.place(token))

    # ---- common and resources ----------------------------------------------------------------------------------

    def _common(self, start: Token) -> None:
        place = self._stream.place(start)
        common = Resource("common", place)
        self._resource(common)
        if self._conf.common is not None:
            self._found.wrong(place, "There is a second section common.", "Put both into one.")
            return
        self._conf.common = common
        if common.hosts:
            what = "The section common has no host sections."
            self._found.wrong(common.hosts[0].place, what, "Put them into a resource.")

    def _named_resource(self, start: Token) -> None:
        stream = self._stream
        name = stream.string("the name of a resource")
        place = stream.place(name)
        if not name.value or any(ord(char) < ord(" ") or char == "\x7f" for char in name.value):
            raise stream.lost(name, "A resource needs a name of visible characters.", "Write one such as r0.")
        if len(self._conf.resources) >= MAX_RESOURCES:
            raise stream.lost(name, f"There are more than {MAX_RESOURCES} resources.", "Remove some.")
        stream.expect("{")
        resource = Resource(name.value, stream.place(start))
        self._resource(resource)
        if self._conf.resource(name.value) is not None:
            self._found.wrong(place, f"There is a second resource {quoted(name.value)}.", "Give it another name.")
            return
        self._conf.resources.append(resource)

    def _resource(self, resource: Resource) -> None:
        """Up to its `}`; drbdadm takes the end of the file for it too, and so do we, with a warning."""
        stream = self._stream
        seen: set[str] = set()
        while not stream.at("}"):
            token = stream.next()
            if token.kind is Kind.END:
                what = f"The file ends inside of {resource.name}: its }} is missing. Is the file complete?"
                self._found.warn(resource.place, what)
                return
            try:
                self._statement(resource, token, seen)
            except Lost:
                stream.recover()
        stream.next()

    def _statement(self, resource: Resource, token: Token, seen: set[str]) -> None:
        stream = self._stream
        word = token.text if token.kind is Kind.WORD else ""
        if word in {"on", "floating", "stacked-on-top-of"}:
            self._host(resource, token)
        elif word in _SECTIONS or (word == "disk" and stream.at("{")):
            self._once(f"the section {word}", token, seen)
            stream.expect("{")
            self._section(resource, word)
        elif word == "protocol":
            self._once("protocol", token, seen)
            option = known.BY_NAME["protocol"]
            value = stream.string("A, B or C")
            stream.expect(";")
            letter = value.value.upper()
            self._options.check(option, value, letter)
            resource.sections["net"].append(Setting("protocol", letter, stream.place(token)))
        elif word in _OF_VOLUMES:
            if word == "device":
                self._once(word, token, seen)
            self._hosts.volume_statement(self._hosts.implicit(resource.volumes, token), token)
        elif word == "volume":
            self._hosts.volume(resource.volumes)
        elif word == "ignore-on":
            stream.string("a host name")
            stream.expect(";")
            self._found.warn(stream.place(token), "ignore-on has had no effect since drbd 8.3.")
        else:
            self._hosts.stray(token, _OF_RESOURCE, "a resource")

    def _once(self, what: str, token: Token, seen: set[str]) -> None:
        if what in seen:
            raise self._stream.lost(token, f"{what[0].upper()}{what[1:]} is there twice.", "Put both into one.")
        seen.add(what)

    def _host(self, resource: Resource, token: Token) -> None:
        stream = self._stream
        if len(resource.hosts) >= MAX_HOSTS:
            raise stream.lost(token, f"There are more than {MAX_HOSTS} host sections.", "Remove some.")
        if token.text == "on":
            host = self._hosts.on(token)
        elif token.text == "floating":
            host = self._hosts.floating(token)
        else:
            host = self._hosts.stacked(token, resource)
        taken = {name for other in resource.hosts if other.kind == host.kind for name in other.names}
        twice = [name for name in host.names if name in taken]
        if twice:
            self._found.wrong(host.place, f"There is a second section for {quoted(twice[0])}.", "Remove one.")
            return
        inherit_volumes(resource, host)
        resource.hosts.append(host)

    def _section(self, resource: Resource, word: str) -> None:
        """The options of a section; those of syncer go where 8.4 has them."""
        for setting in self._options.section(word):
            section = known.BY_NAME[setting.name].section if word == "syncer" else word
            if setting.name == "become-primary-on":
                resource.become_primary_on = setting.words
            elif setting.name == "stacked-timeouts":
                resource.stacked_timeouts = True
            elif setting.name == PLUGIN:
                resource.plugins.append(setting)
            else:
                resource.sections[section].append(setting)
