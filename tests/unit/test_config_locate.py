"""Lines of keys in TOML texts."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from relevo.config.locate import KeyPath, line_numbers

TEXT = r"""# comment
top = 1
"quoted key" = 'x # no comment'
[a.b]     # a header
c.d = { e = 1, f.g = "}" , h = [ { i = 1 }, { j = 2 } ] }
many = [
  "one", # with a comment, and ] here
  'two',
  [ 3,
    4 ],
]
text = QQQ
[not.a.header]
key = "no key"\"QQQ # four quotes
raw = '''
[nor.this]
'''
date = 1979-05-27 07:32:00Z
after = true
[[list]]
x = 1
[[list]]
x = 2
[list.inner]
y = 3
[[list.deep]]
z = 4
""".replace("QQQ", '"' * 3)


def test_every_kind_of_place() -> None:
    tomllib.loads(TEXT)
    lines = line_numbers(TEXT)

    def at(*path: str | int) -> str:
        return TEXT.splitlines()[lines[path] - 1].strip()

    assert at("top") == "top = 1"
    assert at("quoted key").startswith('"quoted key"')
    assert at("a", "b").startswith("[a.b]")
    assert lines["a", "b", "c", "d", "h", 1, "j"] == lines["a", "b", "c", "d", "e"] == 5
    assert lines["a", "b", "c", "d", "f", "g"] == 5
    assert at("a", "b", "many", 1) == "'two',"
    assert at("a", "b", "many", 2, 1) == "4 ],"
    assert at("a", "b", "text") == "text = " + '"' * 3
    assert at("a", "b", "date").startswith("date")
    assert at("a", "b", "after") == "after = true"
    assert at("list", 0, "x") == "x = 1"
    assert at("list", 1, "x") == "x = 2"
    assert at("list", 1, "inner", "y") == "y = 3"
    assert at("list", 1, "deep", 0, "z") == "z = 4"
    assert ("not", "a", "header") not in lines
    assert ("nor", "this") not in lines


def paths(value: Any, inside: KeyPath = ()) -> set[KeyPath]:
    if isinstance(value, dict):
        items: list[tuple[str | int, Any]] = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    else:
        return {inside}
    return {inside}.union(*(paths(inner, (*inside, key)) for key, inner in items))


SCALARS = st.one_of(
    st.integers(-1000, 1000).map(str),
    st.booleans().map(lambda value: str(value).lower()),
    st.text("ab#[]{}=,. '", max_size=6).map(lambda text: f'"{text}"'),
    st.text('ab#[]{}=,. "\\', max_size=6).map(lambda text: f"'{text}'"),
    st.text("ab#[]{}=\n'", max_size=8).map(lambda text: f'"""{text}"""'),
    st.just("1979-05-27"),
    st.just("-inf"),
)
KEYS = st.sampled_from(["a", "b-c", "1", '"d.e"', "'f]'", '"\\u0041"'])
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: "[\n" + ", # x ]\n ".join(items) + "\n]")
        | st.dictionaries(KEYS, inner, max_size=3).map(
            lambda table: "{" + ", ".join(f"{key} = {value}" for key, value in table.items()) + "}"
        )
    ),
    max_leaves=5,
)


@given(
    st.lists(
        st.tuples(st.sampled_from(["[{}]", "[[{}]]"]), KEYS, st.dictionaries(KEYS, VALUES, max_size=3)), max_size=4
    )
)
def test_every_value_has_a_line_where_its_key_stands(tables: list[tuple[str, str, dict[str, str]]]) -> None:
    blocks = [header.format(name) + " # h\n" + "".join(f"{key} = {value}\n" for key, value in pairs.items())
              for header, name, pairs in tables]  # fmt: skip
    text = "\n".join(blocks)
    try:
        value = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # the same table twice
    lines = line_numbers(text)
    assert paths(value) - {()} == set(lines)
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())
    rows = text.split("\n")
    for path, line in lines.items():
        if isinstance(path[-1], str):
            assert path[-1] in rows[line - 1] or "u0041" in rows[line - 1]
