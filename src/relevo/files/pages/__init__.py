"""How the pages look: the templates, the style sheet and the scripts, and how they are sent.

A handler calls `answer(call, "listing.html", …)`; every page extends `templates/base.html` and uses the classes of
`static/style.css`. Nothing here knows the volume. Open `render.py` first.
"""

from __future__ import annotations

from relevo.files.pages.render import answer, document

__all__ = ["answer", "document"]
