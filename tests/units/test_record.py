from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.result import Failure, Success

from support.corpus import NAMES_FROM_HELL
from tsfc.units.record import UnitFiles, record, recorded_arguments

OLD_UNITS = Path(__file__).parents[1] / "fixtures/units-0.1"
SHARED = (
    *("--package=/opt/other", "--visible-paths=/srv/a", "--visible-paths=/home/b"),
    *("--tailscale-package=/opt/tailscale", "--socket=/run/tailscale-work/tailscaled.sock"),
)
OPTIONS = {
    "exporter": (
        "--exporter-metrics-path=/srv/m/peers.prom",
        "--exporter-extra-args=--timeout",
        "--exporter-extra-args=5",
        "--exporter-interval=1min 30s",
    ),
    "keepalive": (
        "--keepalive-metrics-path=/srv/m/keepalive.prom",
        "--keepalive-extra-args=--count",
        "--keepalive-extra-args=1",
    ),
    "watchdog": (
        "--watchdog-max-relay-seconds=60",
        "--watchdog-cooldown-seconds=30",
        "--watchdog-exclude-peers=nas",
        '--watchdog-exclude-peers=%n $HOME "q" \\ é',
        "--watchdog-dry-run",
        "--watchdog-unit=work.service",
    ),
    "capture": ("--capture-output=/srv/c/c.ndjson", "--capture-redact", "--capture-interval=10s"),
}
"Options with which tsfc 0.1 wrote the units in `units-0.1/options`, without defaults."


def old_files(folder: str, job: str) -> UnitFiles:
    """Units of a job that tsfc 0.1 wrote."""
    return UnitFiles(
        *(
            (OLD_UNITS / folder / f"tailscale-{job}.{kind}").read_text()
            for kind in UnitFiles._fields
        )
    )


ARGUMENTS = st.lists(
    st.one_of(
        st.sampled_from([text for text in NAMES_FROM_HELL.values() if text.isprintable()]),
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    )
).map(tuple)


@given(ARGUMENTS)
def test_recorded_arguments_are_read_again_from_one_comment_line(
    arguments: tuple[str, ...],
) -> None:
    line = record(arguments)
    assert line.startswith("# ")
    assert line.split("\n") == [line.removesuffix("\n"), ""]
    assert not line.endswith("\\\n")
    files = UnitFiles(f"# Header\n{line}[Unit]\nAfter=a\n", "")
    assert recorded_arguments("exporter", files) == Success(arguments)


@pytest.mark.parametrize(
    "line",
    [
        "# Options: ",
        "# Options: {",
        '# Options: {"version":1}',
        '# Options: {"version":1,"arguments":[7]}',
        '# Options: {"version":2,"arguments":[]}',
        '# Options: {"version":1,"arguments":[],"more":1}',
    ],
)
def test_a_damaged_or_newer_record_is_a_failure(line: str) -> None:
    found = recorded_arguments("exporter", UnitFiles(f"# Header\n{line}\n[Unit]\n", ""))
    assert isinstance(found, Failure)
    assert found.failure().startswith("the record is damaged, or of a newer tsfc (")
    assert "\n" not in found.failure()


@pytest.mark.parametrize("job", ["exporter", "native-metrics", "keepalive", "watchdog"])
def test_units_of_0_1_with_the_defaults_have_no_options_but_the_package(job: str) -> None:
    assert recorded_arguments(job, old_files("defaults", job)) == Success(("--package=/opt/tsfc",))


@pytest.mark.parametrize("job", OPTIONS)
def test_all_options_of_units_of_0_1_are_read(job: str) -> None:
    assert recorded_arguments(job, old_files("options", job)) == Success((*SHARED, *OPTIONS[job]))


def test_a_package_that_the_units_of_0_1_show_is_that_of_the_installing_tsfc() -> None:
    """So an upgrade runs the new tsfc, wherever it is."""
    service, timer = old_files("defaults", "keepalive")
    shown = service.replace(
        "BindReadOnlyPaths=-/run/tailscale\n",
        "BindReadOnlyPaths=-/run/tailscale\nBindReadOnlyPaths=-/opt/tsfc\n"
        "BindReadOnlyPaths=-/srv/python\n",
    )
    assert recorded_arguments("keepalive", UnitFiles(shown, timer)) == Success(
        ("--visible-paths=/srv/python",)
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ExecStart=", "ExecStop="),
        ('"exporter"', '"watchdog"'),
        ('ExecStart="/opt/tsfc/bin/tsfc"', "ExecStart=/opt/tsfc/bin/tsfc"),
        ('"--socket"', r'"\x2d-socket"'),
        ('.prom"\n', ".prom\n"),
    ],
)
def test_a_changed_command_of_0_1_is_a_failure(old: str, new: str) -> None:
    service, timer = old_files("defaults", "exporter")
    assert old in service
    assert recorded_arguments("exporter", UnitFiles(service.replace(old, new), timer)) == Failure(
        "there is no record of them, and ExecStart= is not that of tsfc 0.1"
    )


def test_a_missing_interval_of_0_1_is_a_failure() -> None:
    service, _ = old_files("defaults", "exporter")
    assert recorded_arguments("exporter", UnitFiles(service, "")) == Failure(
        "there is no record of them, and no OnUnitActiveSec= in the timer"
    )
