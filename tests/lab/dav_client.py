"""A program that has a file open over WebDAV at the virtual IP, while servers come and go."""

from __future__ import annotations

import dataclasses
import re

from relevo.lab.lab import Lab
from relevo.lab.scene import URL

PLACE = URL + "dav/open.txt"
_LOCK = """<D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope>
<D:locktype><D:write/></D:locktype></D:lockinfo>"""
_SAY = """<D:propertyupdate xmlns:D="DAV:"><D:set><D:prop>
<c:colour xmlns:c="u:">{}</c:colour></D:prop></D:set></D:propertyupdate>"""


def _curl(lab: Lab, method: str, *more: str) -> tuple[int, str]:
    """One request of the client; status, and head and body."""
    command = [
        "curl",
        "-s",
        "-i",
        "--retry",
        "20",
        "--retry-connrefused",
        "-X",
        method,
        "-w",
        "\n%{http_code}",
        *more,
        PLACE,
    ]
    done = lab.run("client", command, capture=True, check=True)
    told, _, status = done.stdout.decode().rpartition("\n")
    return int(status), told


@dataclasses.dataclass(frozen=True)
class OpenFile:
    """A file that was stored, locked and given a property."""

    lab: Lab
    token: str

    @classmethod
    def begin(cls, lab: Lab) -> OpenFile:
        """Open it, as an office program does."""
        assert _curl(lab, "PUT", "-d", "before")[0] in {201, 204}
        status, told = _curl(lab, "LOCK", "-H", "Timeout: Second-3600", "-d", _LOCK)
        assert status == 200, told
        found = re.search(r"(?im)^lock-token: (<\S+>)", told)
        assert found is not None, told
        opened = cls(lab, found[1])
        opened.say("blue")
        return opened

    def say(self, colour: str) -> None:
        """Give it a property; acknowledged when this returns."""
        status, told = self._with_token("PROPPATCH", "-d", _SAY.format(colour))
        assert (status, "200 OK" in told) == (207, True), told

    def _with_token(self, method: str, *more: str) -> tuple[int, str]:
        return _curl(self.lab, method, "-H", f"If: ({self.token})", *more)

    def end(self, colour: str) -> None:
        """Nobody else can change it, what was said is there, its program saves and closes, whatever happened before."""
        status, told = _curl(self.lab, "PROPFIND", "-H", "Depth: 0")
        assert status == 207, told
        assert f">{colour}</" in told, told
        assert self.token.strip("<>") in told, told
        assert _curl(self.lab, "PUT", "-d", "somebody else")[0] == 423
        assert _curl(self.lab, "DELETE")[0] == 423
        assert self._with_token("PUT", "-d", "after")[0] == 204
        assert _curl(self.lab, "UNLOCK", "-H", f"Lock-Token: {self.token}")[0] == 204
        assert _curl(self.lab, "GET")[1].endswith("\r\n\r\nafter")
        assert _curl(self.lab, "DELETE")[0] == 204
