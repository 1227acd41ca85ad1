from __future__ import annotations

from argparse import ArgumentTypeError

import pytest

from tsfc.units import values
from tsfc.units.places import HIDDEN_DIRECTORIES, output_problem, socket_problem

EXAMPLE = "/var/lib/alloy"
OWN = f"choose a directory of its own, such as {EXAMPLE}"
SHARED = [
    *("/run", "/srv", "/opt", "/mnt", "/media"),
    *("/var", "/var/lib", "/var/log", "/var/cache", "/var/spool", "/var/opt", "/var/local"),
    *("/var/mail", "/run/private", "/var/lib/private", "/var/cache/private", "/var/log/private"),
]
"Directories in which each program has a directory of its own."
SYSTEM = [
    *("/etc", "/usr", "/boot", "/efi", "/nix", "/bin", "/sbin", "/lib", "/lib32", "/lib64"),
    *("/run/systemd", "/run/dbus", "/run/lock", "/run/udev", "/run/credentials", "/var/lock"),
    *("/var/lib/systemd", "/var/log/journal", "/var/spool/cron"),
    *("/var/lib/tailscale", "/var/lib/tailscale-watchdog"),
]
TAILSCALED = ["/run/tailscale", "/run/tailscale-work", "/run/tailscale-watchdog"]
ELSEWHERE = [
    *("/run/tailscaled.sock", "/var/run/tailscaled.sock", "/var/x.sock", "/run/docker/a.sock"),
    *("/var/lib/tailscale/a.sock", "/srv/tailscale/a.sock", "/run/a/tailscale/a.sock"),
    *("/etc/tailscale/a.sock", "/usr/tailscale/a.sock", "/tailscale/a.sock", "/run/tailscal/a"),
    *("/run/tailscale-watchdog/restart.sock", "/var/run/tailscale-watchdog/restart.sock"),
    "/run/tailscale-watchdog-work/restart.sock",
]
OUTPUTS = [
    pytest.param(values.metrics_path, "a.prom", "/var/lib/alloy", id="metrics"),
    pytest.param(values.capture_path, "a.ndjson", "/var/lib/tailscale-capture", id="capture"),
]


def refusal(value: values.Value, text: str) -> str:
    with pytest.raises(ArgumentTypeError) as error:
        value(text)
    return str(error.value)


@pytest.mark.parametrize("hidden", HIDDEN_DIRECTORIES)
def test_a_path_in_a_hidden_directory_is_refused_at_any_depth(hidden: str) -> None:
    """A directory whose name only starts the same is accepted."""
    problem = f"in {hidden}, which the sandbox of the units hides; choose another directory"
    for text in (f"{hidden}/a", f"{hidden}/b/a"):
        assert output_problem(text, EXAMPLE) == socket_problem(text) == problem
    assert output_problem(f"{hidden}s/a", EXAMPLE) is None
    assert output_problem(f"/srv{hidden}/a", EXAMPLE) is None


@pytest.mark.parametrize("directory", SHARED)
def test_an_output_directly_in_a_shared_directory_is_refused(directory: str) -> None:
    """In a directory of its own below, it is accepted."""
    assert output_problem(f"{directory}/a", EXAMPLE) == (
        f"directly in {directory}, all of which the job could then change; {OWN}"
    )
    assert output_problem(f"{directory}/own/a", EXAMPLE) is None


@pytest.mark.parametrize("directory", SYSTEM)
def test_an_output_in_a_directory_of_the_system_is_refused_at_any_depth(directory: str) -> None:
    for text in (f"{directory}/a", f"{directory}/own/a"):
        assert output_problem(text, EXAMPLE) == (
            f"in {directory}, which belongs to the system; {OWN}"
        )
    assert output_problem(f"{directory}s/own/a", EXAMPLE) is None


@pytest.mark.parametrize("directory", TAILSCALED)
def test_an_output_next_to_the_socket_of_a_tailscaled_is_refused(directory: str) -> None:
    for text in (f"{directory}/a", f"{directory}/own/a", f"/var{directory}/a"):
        assert output_problem(text, EXAMPLE) == (
            f"in {directory}, which belongs to tailscaled; {OWN}"
        )


def test_var_run_is_judged_as_run() -> None:
    for directory in ("", "/systemd", "/user/1000", "/own"):
        assert output_problem(f"/var/run{directory}/a", EXAMPLE) == output_problem(
            f"/run{directory}/a", EXAMPLE
        )


@pytest.mark.parametrize("path", ELSEWHERE)
def test_a_socket_outside_of_a_runtime_directory_of_tailscaled_is_refused(path: str) -> None:
    """The message says how to start tailscaled, for a directory can only be shown whole."""
    assert refusal(values.socket_path, path) == (
        f"{path!r} is not in /run/tailscale or /run/tailscale-NAME, and the jobs could then use "
        "everything in its directory; start tailscaled with "
        '"--socket=/run/tailscale/tailscaled.sock" and RuntimeDirectory=tailscale'
    )


@pytest.mark.parametrize(("value", "name", "example"), OUTPUTS)
def test_a_refused_output_is_reported_with_a_suitable_directory(
    value: values.Value, name: str, example: str
) -> None:
    assert refusal(value, f"/var/lib/{name}") == (
        f"'/var/lib/{name}' is directly in /var/lib, all of which the job could then change; "
        f"choose a directory of its own, such as {example}"
    )
    assert value(f"{example}/{name}") == f"{example}/{name}"
