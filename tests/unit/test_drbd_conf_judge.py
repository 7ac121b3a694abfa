"""drbdadm 8.4 is the judge: same file, same meaning, and the same files are refused."""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import xml.etree.ElementTree as ET

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

import drbd_conf_files as files
from relevo.config.drbd.dump import dump
from relevo.config.drbd.load import read
from relevo.config.drbd.options import OPTIONS, Option, Takes, number
from relevo.config.drbd.site import site_of
from relevo.config.drbd.tree import Conf, Setting
from relevo.config.errors import ConfigErrors

DRBDADM = "/lib/drbd/drbdadm-84"
DRBDADM_83 = "/lib/drbd/drbdadm-83"
DRBDSETUP = "/lib/drbd/drbdsetup-84"
HISTORIC = pathlib.Path(__file__).parent.parent / "data" / "historic"
ME = "nodo1"
ONLY_GLOBAL_TIMEOUTS = ("cmd-timeout-medium", "cmd-timeout-long")


def judge(path: pathlib.Path, drbdadm: str = DRBDADM) -> subprocess.CompletedProcess[bytes]:
    """drbdadm's dump with everything inherited; a dry run asks neither the module nor the network."""
    environment = {**os.environ, "__DRBD_NODE__": ME, "DRBD_DONT_WARN_ON_VERSION_MISMATCH": "1"}
    return subprocess.run(
        [drbdadm, "-d", "-c", str(path), "dump"],
        capture_output=True,
        env=environment,
        timeout=30,
        stdin=subprocess.DEVNULL,
    )


def their_dump(path: pathlib.Path) -> str | None:
    """What the judge prints; None when it refuses the file."""
    done = judge(path)
    assert done.returncode in {0, 10, 20, 1}, done
    return None if done.returncode else done.stdout.decode()


def ours(path: pathlib.Path) -> Conf | None:
    try:
        return read(path, ME)
    except ConfigErrors:
        return None


def plain(text: str) -> list[str]:
    """A dump without comments, and without the time-outs that the judge prints although nobody set them."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    lines = [line for line in lines if not line.strip().startswith(ONLY_GLOBAL_TIMEOUTS)]
    return lines if lines[:2] != ["global {", "}"] else lines[2:]


def same(path: pathlib.Path) -> Conf:
    """Both accept it; our dump is theirs, character for character, and means the same when it is read again."""
    theirs = their_dump(path)
    conf = ours(path)
    assert theirs is not None, judge(path).stderr.decode()
    assert conf is not None, pytest.fail(str(ConfigErrors(read_mistakes(path))))
    text = dump(conf, ME)
    assert plain(text) == plain(theirs)
    for number_, version in enumerate((text, theirs)):
        again = path.with_name(f"again-{number_}.conf")
        again.write_text(version)
        conf_again = read(again, ME)
        assert meaning(conf_again) == meaning(conf)
    return conf


def read_mistakes(path: pathlib.Path) -> list:  # type: ignore[type-arg]
    try:
        read(path, ME)
    except ConfigErrors as errors:
        return list(errors.errors)
    return []


def meaning(conf: Conf) -> object:
    """Everything that a configuration says, without places."""

    def words(settings_: list[Setting]) -> list[tuple[str, str | None]]:
        return [(setting.name, setting.value) for setting in settings_]

    return [
        (
            resource.name,
            {name: words(section) for name, section in resource.sections.items()},
            resource.become_primary_on,
            [
                (
                    host.kind,
                    host.names,
                    str(host.address),
                    [
                        (
                            *(volume.number, volume.device, volume.minor, volume.disk),
                            *(volume.meta_disk, volume.meta_index, words(volume.disk_options)),
                        )
                        for volume in host.volumes
                    ],
                )
                for host in resource.hosts
            ],
        )
        for resource in conf.resources
    ]


def written(folder: pathlib.Path, text: str) -> pathlib.Path:
    path = folder / "drbd.conf"
    path.write_text(text)
    return path


# ---- files that people have ----------------------------------------------------------------------------------------


def test_the_historic_configuration(tmp_path: pathlib.Path) -> None:
    path = written(tmp_path, f'include "{HISTORIC}/drbd.conf";\n')
    conf = same(path)
    assert [resource.name for resource in conf.resources] == ["r0"]


def test_the_historic_quotes_are_refused_by_both() -> None:
    path = HISTORIC / "r0-as-it-stands.res"
    assert their_dump(path) is None
    assert ours(path) is None


@pytest.mark.parametrize("text", files.ACCEPTED.values(), ids=files.ACCEPTED.keys())
def test_accepted_by_both_with_the_same_meaning(text: str, tmp_path: pathlib.Path) -> None:
    same(written(tmp_path, text))


@pytest.mark.parametrize("text", files.REFUSED.values(), ids=files.REFUSED.keys())
def test_refused_by_both(text: str, tmp_path: pathlib.Path) -> None:
    path = written(tmp_path, text)
    assert their_dump(path) is None
    assert ours(path) is None


@pytest.mark.parametrize("text", files.STRICTER.values(), ids=files.STRICTER.keys())
def test_refused_here_although_drbdadm_takes_it(text: str, tmp_path: pathlib.Path) -> None:
    """What drbdsetup or the kernel would refuse later, or what makes no sense; the list is in drbd-conf.md."""
    path = written(tmp_path, text)
    assert their_dump(path) is not None
    assert ours(path) is None


def test_a_quoted_keyword_is_a_value_and_stays_one(tmp_path: pathlib.Path) -> None:
    path = written(tmp_path, files.KEYWORD_NAME)
    theirs, conf = their_dump(path), ours(path)
    assert theirs is not None
    assert conf is not None
    text = dump(conf, ME)
    assert text.replace('"net"', "net").replace('"disk"', "disk").splitlines()[1:] == theirs.splitlines()[1:]
    assert meaning(read(written(tmp_path, text), ME)) == meaning(conf)


@pytest.mark.parametrize("text", files.MILDER.values(), ids=files.MILDER.keys())
def test_accepted_here_although_drbdadm_refuses_it(text: str, tmp_path: pathlib.Path) -> None:
    path = written(tmp_path, text)
    assert their_dump(path) is None
    assert ours(path) is not None


def as_8_3_reads_it(path: pathlib.Path) -> pathlib.Path:
    """What drbdadm of 8.3 prints of a file."""
    done = judge(path, DRBDADM_83)
    assert done.returncode == 0, done
    printed = path.with_name("as-8.3-reads-it.conf")
    printed.write_bytes(done.stdout)
    return printed


@pytest.mark.parametrize("text", [*files.OF_8_3.values(), (HISTORIC / "drbd.d" / "r0.res").read_text()])
def test_files_of_8_3_mean_what_they_meant_to_8_3(text: str, tmp_path: pathlib.Path) -> None:
    path = written(tmp_path, text)
    sites = []
    for each in (path, as_8_3_reads_it(path)):
        conf = read(each, ME)
        found = site_of(conf, conf.resources[0], ME, lambda _host: False)
        assert found is not None
        sites.append(msgspec.structs.replace(found, source=None))
    assert sites[0] == sites[1]


# ---- files that nobody has yet -------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files.configurations())
def test_generated_files_mean_the_same(tmp_path: pathlib.Path, text: str) -> None:
    same(written(tmp_path, text))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files.damaged())
def test_damaged_files_are_judged_alike(tmp_path: pathlib.Path, text: str) -> None:
    path = written(tmp_path, text)
    theirs, conf = their_dump(path), ours(path)
    if theirs is None:
        assert conf is None
    elif conf is not None:
        assert plain(dump(conf, ME)) == plain(theirs)
        for resource in conf.resources:
            with contextlib.suppress(ConfigErrors):
                site_of(conf, resource, ME, lambda _host: True)


# ---- the table -----------------------------------------------------------------------------------------------------


def told_by_drbdsetup(command: str) -> dict[str, ET.Element]:
    done = subprocess.run([DRBDSETUP, "xml-help", command], capture_output=True, text=True, check=True, timeout=30)
    return {str(option.get("name")): option for option in ET.fromstring(done.stdout).iter("option")}  # noqa: S314


@pytest.mark.parametrize(
    ("section", "command"), [("net", "connect"), ("disk", "attach"), ("options", "resource-options")]
)
def test_ranges_defaults_and_words_are_drbds(section: str, command: str) -> None:
    told = told_by_drbdsetup(command)
    table = {option.name: option for option in OPTIONS if option.section == section}
    theirs_alone = told.keys() - table.keys()
    assert theirs_alone <= {
        "tentative",
        "discard-my-data",
        "alternate-address",
        "alternate-peer-address",
        "set-defaults",
    }
    assert table.keys() - told.keys() <= {"use-bmbv"}
    for name in table.keys() & told.keys():
        compare(table[name], told[name])


def compare(option: Option, told: ET.Element) -> None:
    def text(tag: str) -> str:
        return told.findtext(tag, "")

    kind = told.get("type")
    if kind == "boolean":
        assert option.takes is Takes.FLAG
        assert option.default == text("default")
    elif kind == "handler":
        assert option.takes is Takes.CHOICE
        assert set(option.choices) == {word.text for word in told.iter("handler")}
    elif kind == "numeric" and option.name != "resync-after":  # drbdadm makes a minor of its name
        assert option.takes is Takes.NUMBER
        assert (option.low, option.high, option.default) == (int(text("min")), int(text("max")), text("default"))
        assert {"1": 0, "s": 9, "k": 10}[text("unit_prefix")] == option.scale.shift
        tenths = text("unit") == "1/10 seconds"
        assert tenths <= (option.scale.factor == 100)
        assert (text("unit") == "seconds") <= (option.scale.factor == 1000)
    elif kind == "string":
        assert option.takes is Takes.TEXT


@pytest.mark.parametrize(
    "option", [o for o in OPTIONS if o.takes is Takes.NUMBER and o.strict and o.section != "global"]
)
def test_the_judge_has_the_same_limits(option: Option, tmp_path: pathlib.Path) -> None:
    for value, fits in ((option.low - 1, False), (option.low, True), (option.high, True), (option.high + 1, False)):
        if value < 0:
            continue
        text = files.resource(f"{option.section} {{ {option.name} {value}; }}")
        path = written(tmp_path, text)
        assert (their_dump(path) is not None) is fits
        assert (ours(path) is not None) is fits


@pytest.mark.parametrize("text", ["1", "1K", "1k", "1M", "3s", "2G", "4096s", "1025s", "99999999"])
def test_suffixes_count_as_the_judge_counts_them(text: str, tmp_path: pathlib.Path) -> None:
    """Its refusal prints the number in the option's unit."""
    for name, section in (("c-max-rate", "disk"), ("sndbuf-size", "net"), ("congestion-fill", "net")):
        option = next(one for one in OPTIONS if one.name == name)
        path = written(tmp_path, files.resource(f"{section} {{ {name} {text}; }}"))
        said = judge(path).stderr.decode()
        value = number(text, option.scale)
        assert (option.low <= value <= option.high) is ("out of range" not in said)
        if "out of range" in said:
            assert f"=> {value}" in said
