"""Reads the options of a section: `net { … }`, `disk { … }`, `syncer { … }` and the like."""

from __future__ import annotations

from relevo.config.drbd import options as known
from relevo.config.drbd.lexer import Kind, Token
from relevo.config.drbd.options import Meant, Option, Takes
from relevo.config.drbd.places import Findings, nearest, quoted
from relevo.config.drbd.stream import Lost, Stream
from relevo.config.drbd.tree import Setting

PLUGIN = "plugin"
DISCARD_NODE = "discard-node-"
"""`after-sb-0pri discard-node-NAME` names the side whose changes go."""


class OptionsParser:
    """Reads sections from a stream.

    Args:
        stream: the tokens.
        found: where mistakes and warnings go.
    """

    def __init__(self, stream: Stream, found: Findings) -> None:
        self._stream = stream
        self._found = found

    def section(self, section: str) -> list[Setting]:
        """The options up to the `}` that ends the section; its `{` was taken."""
        settings: list[Setting] = []
        stream = self._stream
        while not stream.at("}"):
            if stream.peek.kind is Kind.END:
                self._found.wrong(
                    stream.place(stream.peek), f"The file ends inside of a section {section}.", "Add } at its end."
                )
                return settings
            try:
                settings.extend(self._option(section))
            except Lost:
                stream.recover()
        stream.next()
        return settings

    def _option(self, section: str) -> list[Setting]:
        """One statement: an option, none (it means nothing any more), or all lines of a `plugin`."""
        stream = self._stream
        token = stream.next()
        if section == "proxy" and token.kind is Kind.WORD and token.text == PLUGIN:
            stream.expect("{")
            return self._plugins()
        meant = known.meant_by(token.text, section) if token.kind is Kind.WORD else None
        if meant is None:
            return self._other(token, section)
        option, place = meant.option, stream.place(token)
        if option.name == "become-primary-on":
            words = [stream.string("a host name, or both").value]
            while not stream.at(";"):
                words.append(stream.string("a host name or ';'").value)
            stream.next()
            return [Setting(option.name, " ".join(words), place, tuple(words))]
        value = self._value(meant)
        # The proxy takes words of other sections as they are.
        return [Setting(token.text if section == "proxy" else option.name, value, place)]

    def _plugins(self) -> list[Setting]:
        """The lines of `plugin { … }` of a proxy; its `{` was taken."""
        stream = self._stream
        lines: list[Setting] = []
        words: list[Token] = []
        while True:
            token = stream.next()
            if token.kind is Kind.END:
                raise stream.unexpected(token, "the end of plugin", "Add } at its end.")
            if token.kind is Kind.PUNCTUATION and token.text == "}":
                if words:
                    raise stream.unexpected(token, "';'")
                return lines
            if token.kind is Kind.PUNCTUATION and token.text == ";":
                if words:
                    line = tuple(word.value for word in words)
                    lines.append(Setting(PLUGIN, None, stream.place(words[0]), line))
                words = []
            else:
                words.append(token)

    def _value(self, meant: Meant) -> str | None:
        """What follows an option's name, and its `;`."""
        option, stream = meant.option, self._stream
        if meant.value is not None or option.takes is Takes.BARE:
            stream.expect(";")
            return meant.value
        if option.takes is Takes.FLAG:
            return self._flag(option)
        token = stream.value(f"a value of {option.name}")
        stream.expect(";")
        value = token.value
        if option.name == "protocol" and value.upper() in option.choices:
            value = value.upper()
        self.check(option, token, value)
        return value

    def _flag(self, option: Option) -> str:
        stream = self._stream
        token = stream.next()
        if token.kind is Kind.PUNCTUATION and token.text == ";":
            return "yes"
        if token.kind is not Kind.WORD or token.text not in {"yes", "no"}:
            raise stream.unexpected(token, f"yes, no or ';' after {option.name}")
        stream.expect(";")
        return token.text

    def check(self, option: Option, token: Token, value: str) -> None:
        """Write down what is wrong with a value; the setting stays, so that more mistakes can be found."""
        place = self._stream.place(token)
        if option.takes is Takes.CHOICE and value not in option.choices:
            if option.name == "after-sb-0pri" and value.startswith(DISCARD_NODE):
                return
            what = f"{option.name} does not know {quoted(value)}."
            self._found.wrong(place, what, nearest(value, option.choices))
        elif option.takes is Takes.NUMBER:
            self._check_number(option, token, value)

    def _check_number(self, option: Option, token: Token, value: str) -> None:
        place = self._stream.place(token)
        unit = f" {option.scale.unit}" if option.scale.unit else ""
        span = f"{option.low} to {option.high}{unit}"
        try:
            number = known.number(value, option.scale)
        except known.NotANumber:
            remedy = f"Write {span}; K, M and G stand for 2^10, 2^20 and 2^30, s for 512."
            self._found.wrong(place, f"{option.name} needs a number, not {quoted(value)}.", remedy)
            return
        if option.low <= number <= option.high:
            return
        what = f"{option.name} is {number}{unit}, outside of {span}"
        if option.strict:
            self._found.wrong(place, f"{what}.", f"Write {span}.")
        else:
            self._found.warn(place, f"{what}: the nearest of these counts.")

    def _other(self, token: Token, section: str) -> list[Setting]:
        """A word that is no option of this section."""
        stream = self._stream
        word = token.text
        if token.kind is not Kind.WORD:
            raise stream.unexpected(token, f"an option of section {section}")
        place = stream.place(token)
        if word in known.DEPRECATED:
            stream.value(f"a value of {word}")
            stream.expect(";")
            self._found.warn(place, f"{word} means nothing since drbd 8.3.")
            return []
        if word in known.OF_DRBD_9:
            raise stream.lost(token, f"{word} is of drbd 9, this is read as drbd 8.4 reads it.", "Remove it.")
        homes = [name for name in (*known.SECTIONS, "syncer") if known.meant_by(word, name) is not None]
        what = f"The section {section} has no option {quoted(word)}."
        if homes:
            raise stream.lost(token, what, f"It belongs into the section {' or '.join(homes)}.")
        raise stream.lost(token, what, nearest(word, known.words_of(section)))
