"""`tsfc units --install` keeps the options of the installed units."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from support.exec_line import command
from support.processes import Completed, error_lines, run
from tsfc.cli.units import DEFAULTS

JOBS = ("exporter", "native-metrics", "keepalive", "watchdog")
PACKAGE = "/opt/tsfc"
UNITS = "etc/systemd/system"
OLD_UNITS = Path(__file__).parents[1] / "fixtures/units-0.1"
NOTHING_CHANGED = "; give all options again with --reset. Nothing was changed"


@pytest.fixture
def root(box: Path) -> Path:
    """Root of an empty file system."""
    root = box / "root"
    root.mkdir()
    return root


def units(root: Path, *arguments: str, action: str = "install") -> Completed:
    return run("units", f"--{action}", "--root", str(root), *arguments)


def install(root: Path, *arguments: str) -> list[str]:
    """Install, which must succeed, and return the lines about kept options."""
    ran = units(root, *arguments)
    assert ran.status == 0, ran
    return [line for line in ran.stdout.splitlines() if line.startswith("kept ")]


def unit(root: Path, name: str) -> Path:
    return root / UNITS / f"tailscale-{name}"


def arguments_of(root: Path, job: str) -> tuple[str, ...]:
    """Arguments of the command line of an installed job."""
    return command(unit(root, f"{job}.service").read_text())


def values(root: Path, job: str, option: str) -> list[str]:
    """Values of an option on the command line of an installed job."""
    arguments = arguments_of(root, job)
    return [value for name, value in pairwise(arguments) if name == option]


def tree(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): path.read_text()
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def installed(root: Path) -> set[str]:
    """Jobs whose service is installed."""
    return {path.name.removeprefix("tailscale-") for path in (root / UNITS).glob("*.service")}


EACH_OPTION = {
    "--package=/opt/tsfc": JOBS,
    "--tailscale-package=/opt/tailscale": JOBS,
    "--socket=/run/tailscale-b/tailscaled.sock": JOBS,
    "--metrics-dir=/srv/all": JOBS,
    "--visible-paths=/srv/a": JOBS,
    "--labels=site=here": JOBS,
    "--agent": JOBS,
    "--agent-metrics-path=/srv/m/agent.prom": JOBS,
    "--agent-adaptive-keepalive": JOBS,
    "--agent-listen=127.0.0.1:9199": JOBS,
    "--agent-listen-anywhere": JOBS,
    "--exporter-interval=7min": ("exporter",),
    "--exporter-metrics-path=/srv/m/a.prom": ("exporter",),
    "--exporter-accept-health=Some peers*": ("exporter",),
    "--exporter-omit-users": ("exporter",),
    "--exporter-args=--timeout 5": ("exporter",),
    "--native-metrics-interval=8min": ("native-metrics",),
    "--native-metrics-metrics-path=/srv/m/b.prom": ("native-metrics",),
    "--native-metrics-args=--timeout=5": ("native-metrics",),
    "--keepalive-interval=9min": ("keepalive",),
    "--keepalive-metrics-path=/srv/m/c.prom": ("keepalive",),
    "--keepalive-exclude-peers=phone": ("keepalive",),
    "--keepalive-exclude-os=iOS": ("keepalive",),
    "--keepalive-args=--count=1": ("keepalive",),
    "--watchdog-interval=2min": ("watchdog",),
    "--watchdog-max-relay-seconds=60": ("watchdog",),
    "--watchdog-cooldown-seconds=30": ("watchdog",),
    "--watchdog-exclude-peers=nas": ("watchdog",),
    "--watchdog-exclude-peers=%n $HOME": ("watchdog",),
    "--watchdog-policy=guarded": ("watchdog",),
    "--watchdog-budget=3": ("watchdog",),
    "--watchdog-remedies=restart,other-port": ("watchdog",),
    "--watchdog-dry-run": ("watchdog",),
    "--watchdog-notify-exec=/srv/tell": ("watchdog",),
    "--watchdog-unit=b.service": ("watchdog",),
    "--watchdog-metrics-path=/srv/m/d.prom": ("watchdog",),
    "--watchdog-args=--timeout=6": ("watchdog",),
    "--capture-interval=3min": ("capture",),
    "--capture-output=/srv/c/c.ndjson": ("capture",),
    "--capture-redact": ("capture",),
    "--capture-args=--keep=2": ("capture",),
}
"All options of the units, with the jobs that they concern."


def test_an_installation_without_options_keeps_all_options(root: Path) -> None:
    """And prints each with its jobs."""
    for of_agent in (False, True):
        options = {
            option: jobs
            for option, jobs in EACH_OPTION.items()
            if of_agent or not option.startswith("--agent")
        }
        install(root, *JOBS, "capture", *options)
        before = tree(root)
        kept = install(root)
        assert tree(root) == before
        assert sorted(kept) == sorted(
            f"kept {quoted(option)} for {', '.join((*jobs, *capture(option, jobs)))}"
            for option, jobs in options.items()
        )


def quoted(option: str) -> str:
    return f"'{option}'" if {" ", "$", "%"} & set(option) else option


def capture(option: str, jobs: Sequence[str]) -> Sequence[str]:
    return ("capture",) if jobs == JOBS and not option.startswith("--agent") else ()


def test_the_tests_know_each_option() -> None:
    assert {option.partition("=")[0] for option in EACH_OPTION} == {
        f"--{name.replace('_', '-')}" for name in DEFAULTS
    }


NEEDED = {
    "--socket": "--watchdog-unit=b.service",
    "--watchdog-budget": "--watchdog-policy=guarded",
    "--watchdog-remedies": "--watchdog-policy=guarded",
    "--agent-metrics-path": "--agent",
    "--agent-adaptive-keepalive": "--agent",
    "--agent-listen": "--agent",
    "--agent-listen-anywhere": "--agent --agent-listen=127.0.0.1:9199",
}
"Options that others need, and which."


@pytest.mark.parametrize(("option", "jobs"), EACH_OPTION.items())
def test_an_option_that_is_given_alone_is_kept(
    root: Path, option: str, jobs: tuple[str, ...]
) -> None:
    package = () if option.startswith("--package") else (f"--package={PACKAGE}",)
    others = NEEDED.get(option.partition("=")[0], "").split()
    install(root, *dict.fromkeys((*JOBS, *jobs)), *package, *others, option)
    before = tree(root)
    kept = install(root)
    assert tree(root) == before
    assert any(line.startswith(f"kept {quoted(option)} for ") for line in kept)


def test_an_installation_with_an_option_changes_only_this_option(root: Path) -> None:
    install(
        root,
        *(f"--package={PACKAGE}", "--watchdog-exclude-peers=nas", "--watchdog-cooldown-seconds=30"),
        "--exporter-interval=7min",
    )
    kept = install(root, "--watchdog-cooldown-seconds=40")
    assert kept == [
        f"kept --package={PACKAGE} for exporter, native-metrics, keepalive, watchdog",
        "kept --exporter-interval=7min for exporter",
        "kept --watchdog-exclude-peers=nas for watchdog",
    ]
    assert values(root, "watchdog", "--exclude-peer") == ["nas"]
    assert values(root, "watchdog", "--cooldown-seconds") == ["40"]
    assert "OnBootSec=7min\n" in unit(root, "exporter.timer").read_text()


def test_a_given_list_replaces_the_kept_one(root: Path) -> None:
    install(
        root, f"--package={PACKAGE}", "--watchdog-exclude-peers=a", "--watchdog-exclude-peers=b"
    )
    install(root, "--watchdog-exclude-peers=c")
    assert values(root, "watchdog", "--exclude-peer") == ["c"]


def test_a_default_that_is_given_is_kept_like_any_other_value(root: Path) -> None:
    """So that another default of a later version does not change it."""
    install(root, f"--package={PACKAGE}", "--exporter-interval=30s")
    assert "kept --exporter-interval=30s for exporter" in install(root)


def test_the_former_spelling_of_extra_arguments_is_kept_under_the_new_one(root: Path) -> None:
    """That of tsfc 0.1 took one argument at a time."""
    old = ("--exporter-extra-args=--label", "--exporter-extra-args=site=a b")
    install(root, "exporter", *old)
    assert arguments_of(root, "exporter")[-2:] == ("--label", "site=a b")
    before = tree(root)
    assert install(root) == ["""kept '--exporter-args=--label '"'"'site=a b'"'"'' for exporter"""]
    assert tree(root) == before
    install(root, "--unset", "exporter-extra-args")
    assert "--label" not in arguments_of(root, "exporter")


def test_a_reset_returns_to_the_defaults(root: Path) -> None:
    package = f"--package={PACKAGE}"
    install(root, package)
    defaults = tree(root)
    install(root, "--watchdog-exclude-peers=nas", "--exporter-interval=7min")
    assert install(root, "--reset", package) == []
    assert tree(root) == defaults


def test_a_reset_with_options_is_the_defaults_and_these_options(root: Path) -> None:
    package = f"--package={PACKAGE}"
    install(root, package, "--watchdog-exclude-peers=nas", "--exporter-interval=7min")
    assert install(root, "--reset", package, "--watchdog-cooldown-seconds=30") == []
    after = tree(root)
    (root.parent / "new").mkdir()
    install(root.parent / "new", package, "--watchdog-cooldown-seconds=30")
    assert after == tree(root.parent / "new")


def test_a_reset_of_one_job_keeps_the_options_of_the_others(root: Path) -> None:
    package = f"--package={PACKAGE}"
    install(root, package, "--watchdog-exclude-peers=nas", "--exporter-interval=7min")
    install(root, "exporter", "--reset", package)
    assert "OnBootSec=30s\n" in unit(root, "exporter.timer").read_text()
    assert values(root, "watchdog", "--exclude-peer") == ["nas"]


@pytest.mark.parametrize("name", ["watchdog-dry-run", "--watchdog-dry-run"])
def test_an_option_that_is_unset_has_its_default_again(root: Path, name: str) -> None:
    """As after a trial of the watchdog."""
    install(root, f"--package={PACKAGE}", "--watchdog-dry-run", "--watchdog-exclude-peers=nas")
    install(root, f"--unset={name}")
    assert "--dry-run" not in arguments_of(root, "watchdog")
    assert values(root, "watchdog", "--exclude-peer") == ["nas"]


def test_without_names_the_installed_jobs_are_installed_again(root: Path) -> None:
    install(root, "exporter", "capture", f"--package={PACKAGE}")
    install(root, "--exporter-interval=7min")
    assert installed(root) == {"exporter.service", "capture.service"}


def test_without_names_and_installed_jobs_the_four_usual_jobs_are_installed(root: Path) -> None:
    install(root, f"--package={PACKAGE}")
    assert installed(root) == {
        *(f"{job}.service" for job in JOBS),
        "watchdog-restart@.service",
    }


def test_a_job_that_is_not_installed_yet_has_the_defaults(root: Path) -> None:
    package = f"--package={PACKAGE}"
    install(root, "keepalive", package, "--tailscale-package=/opt/tailscale")
    install(root, "exporter", package)
    assert values(root, "exporter", "--tailscale") == []
    assert values(root, "keepalive", "--tailscale") == ["/opt/tailscale/bin/tailscale"]


def test_print_shows_what_install_would_write_with_the_kept_options(root: Path) -> None:
    install(root, f"--package={PACKAGE}", "--watchdog-exclude-peers=nas")
    before = tree(root)
    ran = units(root, "--watchdog-cooldown-seconds=30", action="print")
    assert (ran.status, ran.stderr, tree(root)) == (0, "", before)
    for text in ('"--exclude-peer" "nas"', '"--cooldown-seconds" "30"'):
        assert text in ran.stdout
    assert '"nas"' not in units(root, "--reset", f"--package={PACKAGE}", action="print").stdout


def test_a_drop_in_stays(root: Path) -> None:
    install(root, f"--package={PACKAGE}")
    drop_in = unit(root, "exporter.service.d") / "a.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[Service]\nNice=5\n")
    install(root, "--reset", f"--package={PACKAGE}")
    assert drop_in.read_text() == "[Service]\nNice=5\n"


def test_uninstall_forgets_the_options(root: Path) -> None:
    package = f"--package={PACKAGE}"
    install(root, package)
    defaults = tree(root)
    install(root, "--watchdog-exclude-peers=nas")
    assert units(root, action="uninstall").status == 0
    assert install(root, package) == []
    assert tree(root) == defaults


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        ("# Options: {", "the record is damaged, or of a newer tsfc ("),
        ('# Options: {"version":9,"arguments":[]}', "the record is damaged, or of a newer tsfc ("),
        (
            '# Options: {"version":1,"arguments":["--exporter-colour=red"]}',
            "this version has no option --exporter-colour=red",
        ),
        (
            '# Options: {"version":1,"arguments":["--exporter-interval=0s"]}',
            "argument --exporter-interval: '0s' is not a time span",
        ),
        ('# Options: {"version":1,"arguments":["--exporter-interval"]}', "expected one argument"),
        (
            '# Options: {"version":1,"arguments":["red"]}',
            "this version has no option red",
        ),
        ("", "there is no record of them, and ExecStart= is not that of tsfc 0.1"),
    ],
)
@pytest.mark.parametrize("action", ["install", "print"])
def test_an_unreadable_record_is_reported_in_one_line_and_changes_nothing(
    root: Path, action: str, record: str, problem: str
) -> None:
    install(root, f"--package={PACKAGE}", "--watchdog-exclude-peers=nas")
    service = unit(root, "exporter.service")
    header, _, *rest = service.read_text().split("\n")
    if not record:
        rest = [line for line in rest if not line.startswith("ExecStart=")]
    service.write_text("\n".join((header, record, *rest)))
    before = tree(root)
    ran = units(root, action=action)
    (complaint,) = error_lines("units", ran)
    assert problem in complaint
    assert "exporter" in complaint
    assert complaint.endswith(NOTHING_CHANGED)
    assert (ran.status, ran.stdout, tree(root)) == (1, "", before)
    # A reset does not read it, and neither does the installation of other jobs.
    install(root, "watchdog")
    install(root, "--reset", f"--package={PACKAGE}")
    assert values(root, "watchdog", "--exclude-peer") == []


def with_old_units(root: Path, folder: str) -> None:
    """Copy units that tsfc 0.1 installed."""
    shutil.copytree(OLD_UNITS / folder, root / UNITS)


def test_the_options_of_units_of_0_1_are_kept(root: Path) -> None:
    with_old_units(root, "options")
    old = {job: arguments_of(root, job) for job in ("exporter", "keepalive", "watchdog", "capture")}
    kept = install(root)
    assert {job: arguments_of(root, job) for job in old} == old
    assert "kept --watchdog-exclude-peers=nas for watchdog" in kept
    assert "OnBootSec=1min 30s\n" in unit(root, "exporter.timer").read_text()
    assert "BindReadOnlyPaths=-/home/b\n" in unit(root, "keepalive.service").read_text()
    after = tree(root)
    assert sorted(install(root)) == sorted(kept)
    assert tree(root) == after


def test_units_of_0_1_with_the_defaults_are_replaced_by_those_of_this_version(root: Path) -> None:
    with_old_units(root, "defaults")
    assert install(root) == [
        f"kept --package={PACKAGE} for exporter, native-metrics, keepalive, watchdog"
    ]
    (root.parent / "new").mkdir()
    install(root.parent / "new", f"--package={PACKAGE}")
    assert tree(root) == tree(root.parent / "new")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["exporter", "--watchdog-dry-run"],
            "--watchdog-dry-run has no effect: its job is not one of exporter; name the job, too",
        ),
        (
            ["exporter", "--unset=keepalive-interval"],
            (
                "--keepalive-interval has no effect: its job is not one of exporter; "
                "name the job, too"
            ),
        ),
        (["--unset=interval"], "argument --unset: 'interval' is not an option of the units"),
        (
            ["--watchdog-budget=3"],
            "--watchdog-budget is an option of the guarded policy; give --watchdog-policy guarded",
        ),
        (
            ["--watchdog-policy=documented", "--watchdog-budget=3"],
            "or drop a kept option with --unset watchdog-budget",
        ),
        (["--labels=a"], "argument --labels: 'a' is not NAME=VALUE"),
        (["--labels=__a=b"], "argument --labels: '__a=b' is not NAME=VALUE"),
        (["--labels=9=b"], "argument --labels: '9=b' is not NAME=VALUE"),
    ],
)
def test_an_option_without_effect_is_reported_in_one_line(
    root: Path, arguments: list[str], says: str
) -> None:
    ran = units(root, f"--package={PACKAGE}", *arguments)
    (complaint,) = error_lines("units", ran)
    assert says in complaint
    assert (ran.status, ran.stdout, any(root.iterdir())) == (2, "", False)


WITHOUT_KEEPALIVE = [
    (
        "the watchdog is installed without keepalive: idle peers fall back to a relay, and each "
        "can cause a restart; install keepalive, too"
    )
]


def test_a_watchdog_without_keepalive_is_reported(root: Path) -> None:
    """At each installation of the watchdog, and when keepalive is removed."""
    package = f"--package={PACKAGE}"
    assert error_lines("units", units(root, "watchdog", package)) == WITHOUT_KEEPALIVE
    assert error_lines("units", units(root)) == WITHOUT_KEEPALIVE
    assert error_lines("units", units(root, "exporter", package)) == []
    assert error_lines("units", units(root, "keepalive", package)) == []
    assert error_lines("units", units(root, "watchdog")) == []
    assert error_lines("units", units(root, "keepalive", action="uninstall")) == WITHOUT_KEEPALIVE
    assert error_lines("units", units(root, action="uninstall")) == []


OTHER_SOCKET = (
    "--socket /run/tailscale-b/tailscaled.sock may be that of another tailscaled than "
    "tailscaled.service, which the watchdog would restart; give --watchdog-unit"
)


@pytest.mark.parametrize("action", ["install", "print"])
def test_a_watchdog_with_another_socket_needs_a_unit(root: Path, action: str) -> None:
    options = (f"--package={PACKAGE}", "--socket=/run/tailscale-b/tailscaled.sock")
    ran = units(root, *options, action=action)
    assert error_lines("units", ran) == [OTHER_SOCKET]
    assert (ran.status, ran.stdout, any(root.iterdir())) == (2, "", False)
    for allowed in (
        "exporter",
        "--watchdog-unit=b.service",
        "--watchdog-unit=tailscaled.service",
        "--watchdog-dry-run",
    ):
        (root.parent / allowed).mkdir()
        assert units(root.parent / allowed, *options, allowed, action=action).status == 0


def test_the_default_socket_needs_no_unit_under_either_of_its_names(root: Path) -> None:
    for directory in ("/run", "/var/run"):
        install(root, f"--package={PACKAGE}", f"--socket={directory}/tailscale/tailscaled.sock")


def test_a_watchdog_whose_trial_ends_needs_a_unit(root: Path) -> None:
    """The socket is kept."""
    options = (f"--package={PACKAGE}", "--socket=/run/tailscale-b/tailscaled.sock")
    install(root, *options, "--watchdog-dry-run")
    ran = units(root, "--unset=watchdog-dry-run")
    assert (ran.status, error_lines("units", ran)) == (2, [OTHER_SOCKET])
    install(root, "--unset=watchdog-dry-run", "--watchdog-unit=b.service")
    assert values(root, "watchdog", "--unit") == ["b.service"]
