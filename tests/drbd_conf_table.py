"""The tables of options in docs/internals/drbd-conf.md, made from the program's own table.

`python tests/drbd_conf_table.py` writes them into the document; a test keeps both equal.
"""

from __future__ import annotations

import pathlib

from relevo.config.drbd.options import OPTIONS, SECTIONS, Option, Takes

DOCUMENT = pathlib.Path(__file__).parent.parent / "docs" / "internals" / "drbd-conf.md"
BEGIN, END = "<!-- options: begin -->", "<!-- options: end -->"


def tables() -> str:
    """One table for each section."""
    parts = []
    for section in (*SECTIONS, "global"):
        parts.append(f"### {section}\n\n| option | takes | default | effect here |\n| --- | --- | --- | --- |")
        parts.extend(_row(option) for option in OPTIONS if option.section == section)
        parts.append("")
    return "\n".join(parts)


def _row(option: Option) -> str:
    old = f" (8.3: `{option.old_name}`)" if option.old_name else ""
    old += ", `syncer`" if option.in_syncer else ""
    effect = "yes" if option.honoured else f"**none**: {option.without_effect}"
    default = f"`{option.default}`" if option.default else ""
    return f"| `{option.name}`{old} | {_takes(option)} | {default} | {effect} |"


def _takes(option: Option) -> str:
    if option.takes is Takes.NUMBER:
        unit = f" {option.scale.unit}" if option.scale.unit else ""
        return f"{option.low} to {option.high}{unit}"
    if option.takes is Takes.CHOICE:
        return ", ".join(f"`{word}`" for word in option.choices)
    if option.name == "become-primary-on":
        return "host names, or `both`"
    return option.takes.value


def written(document: str) -> str:
    """The part of the document between the marks."""
    return document.partition(BEGIN)[2].partition(END)[0].strip() + "\n"


def main() -> None:
    """Write the tables into the document."""
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{tables()}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
