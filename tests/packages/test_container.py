"""The container recipe, run in copies of a new Debian instead of an engine."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from packages.debian import ENVIRONMENT, ROOT, UNPRIVILEGED, Debian, directory_in_memory
from support.hosts import STATUS_LINE
from support.processes import series, wait_until
from tsfc.cli import main as cli

RECIPE = ROOT / "tools/packages/Containerfile"
COMPOSE = RECIPE.with_name("compose.yaml")
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
SOCKET = "/run/tailscale/tailscaled.sock"


class Instruction(NamedTuple):
    """An instruction of the recipe."""

    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """Arguments: a list in JSON, or words."""
        return json.loads(self.text) if self.text.startswith("[") else shlex.split(self.text)


def instructions() -> list[Instruction]:
    """All instructions; each is on one line."""
    lines = [line for line in RECIPE.read_text().splitlines() if line and line[0] != "#"]
    return [Instruction(*line.split(" ", 1)) for line in lines]


def last(name: str) -> list[str]:
    """Arguments of the last instruction with a name."""
    return [each for each in instructions() if each.name == name][-1].words


class Image(NamedTuple):
    """The last stage of the recipe."""

    debian: Debian
    command: list[str]
    "What an engine runs in it."


@pytest.fixture(scope="module")
def image(bootstrapped: Debian) -> Iterator[Image]:
    """The image that the recipe builds."""
    stages: dict[str, Debian] = {}
    with directory_in_memory() as directory:
        for each in instructions():
            carry_out(each, stages, directory, bootstrapped)
        *_, image = stages.values()
        yield Image(image, [*last("ENTRYPOINT"), *last("CMD")])


def carry_out(
    instruction: Instruction, stages: dict[str, Debian], directory: Path, base: Debian
) -> None:
    """Do what an engine does for an instruction that builds something."""
    *_, stage = (None, *stages.values())
    match instruction.name, instruction.words:
        case "FROM", ["docker.io/library/debian:12-slim", *name]:
            root = directory / str(len(stages))
            subprocess.run(["cp", "-a", str(base.root), str(root)], check=True)
            stages[name[-1] if name else ""] = Debian(root)
        case "RUN", _:
            assert stage is not None
            pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
            if "PIP_CERT" in pip:  # This machine has an index of its own.
                stage.path(CERTIFICATES).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(CERTIFICATES, stage.path(CERTIFICATES))
            variables = (f"{name}={value}" for name, value in pip.items())
            stage.run("env", *variables, "sh", "-euc", instruction.text)
        case "COPY", [origin, source, target] if origin.startswith("--from="):
            assert stage is not None
            from_stage = stages[origin.removeprefix("--from=")]
            shutil.copytree(from_stage.path(source), stage.path(target), symlinks=True)
        case "COPY", [*sources, target]:
            assert stage is not None
            for source in sources:
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, stage.path(target))
                else:
                    stage.path(target).mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / source, stage.path(target))
        case "USER" | "VOLUME" | "ENTRYPOINT" | "CMD", _:
            pass
        case name, _:
            pytest.fail(f"this test does not know {name} {instruction.text}")


@pytest.mark.slow
def test_the_image_writes_the_metrics_of_a_tailscaled(image: Image) -> None:
    """As a user without privileges."""
    assert last("USER") == ["nobody"]
    debian = image.debian
    debian.path("/run/tailscale").mkdir()
    debian.path("/srv/capture.ndjson").write_text(STATUS_LINE)
    program = image.command[0]
    tailscaled = (program, "stand-in", "--capture", "/srv/capture.ndjson", "--socket", SOCKET)
    metrics = debian.path("/metrics/tailscale-peers.prom")
    chroot = ("chroot", str(debian.root))
    with (
        subprocess.Popen([*chroot, *tailscaled], env=ENVIRONMENT) as stand_in,
        subprocess.Popen([*chroot, *UNPRIVILEGED, *image.command], env=ENVIRONMENT) as agent,
    ):
        try:
            wait_until(
                lambda: metrics.exists() and series(metrics.read_text())["tailscale_up"] == 1,
                "the agent has written that tailscaled is up",
            )
            assert metrics.stat().st_uid == 65534
        finally:
            agent.terminate()
            stand_in.terminate()


def test_the_image_runs_a_command_that_exists() -> None:
    """Without the watchdog, which cannot restart another container."""
    options: Any = cli._parse(last("CMD"))
    assert options.jobs == ("exporter", "native-metrics", "keepalive")


def test_the_example_shares_the_directory_of_the_socket() -> None:
    compose = yaml.safe_load(COMPOSE.read_text())
    tailscale, tsfc = (compose["services"][name] for name in ("tailscale", "tsfc"))
    directory = os.path.dirname(tailscale["environment"]["TS_SOCKET"])
    assert directory == os.path.dirname(SOCKET)
    assert f"socket:{directory}" in tailscale["volumes"]
    assert f"socket:{directory}:ro" in tsfc["volumes"]
    used = {volume.split(":")[0] for service in (tailscale, tsfc) for volume in service["volumes"]}
    assert used == set(compose["volumes"])
    build = tsfc["build"]
    assert (COMPOSE.parent / build["context"] / build["dockerfile"]).resolve() == RECIPE
    assert last("VOLUME") == ["/metrics"]
