from __future__ import annotations

import ast
import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FILES = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.nix", "src/**/*.nix", "nix/**/*.nix", "tests/**/*.nix")
    for path in ROOT.glob(pattern)
)
SYSTEMS = ["aarch64-linux", "x86_64-linux"]
JOBS = ["capture", "exporter", "keepalive", "native-metrics", "watchdog"]
FLAKE = """
let
  nixpkgs = import ./tests/nix/nixpkgs.nix;
  pkgs = nixpkgs.legacyPackages.x86_64-linux;
  outputs = (import ./flake.nix).outputs { inherit self nixpkgs; };
  self = outputs // { outPath = "/checkout"; };
in
"""

Evaluate = Callable[[str], Any]


@pytest.fixture
def evaluate(nix_instantiate: Callable[..., str]) -> Evaluate:
    """Evaluates an expression about the flake."""
    return lambda expression: json.loads(
        nix_instantiate("--eval", "--strict", "--json", "--expr", FLAKE + expression)
    )


@pytest.mark.parametrize("file", FILES)
def test_a_file_parses(file: str, nix_instantiate: Callable[..., str]) -> None:
    """Even if no other test evaluates it."""
    nix_instantiate("--parse", file)


def test_the_flake_has_its_outputs(evaluate: Evaluate) -> None:
    """Exactly these, of these kinds, for each system."""
    kinds = """
      let
        kind = value:
          if !builtins.isAttrs value then builtins.typeOf value
          else if value ? type then value.type
          else builtins.mapAttrs (_: kind) value;
      in
      kind outputs
    """

    def for_each_system(outputs: object) -> dict[str, object]:
        return dict.fromkeys(SYSTEMS, outputs)

    assert evaluate(kinds) == {
        "checks": for_each_system(
            dict.fromkeys(["formatting", "tsfc", "two-nodes", "units"], "derivation")
        ),
        "devShells": for_each_system({"default": "derivation"}),
        "formatter": for_each_system("derivation"),
        "nixosModules": dict.fromkeys(["default", *JOBS], "path"),
        "overlays": {"default": "lambda"},
        "packages": for_each_system({"default": "derivation", "tsfc": "derivation"}),
    }


def test_its_modules_exist(evaluate: Evaluate) -> None:
    """Nix checks a path only when it is imported."""
    assert evaluate(
        "builtins.mapAttrs (_: builtins.pathExists) outputs.nixosModules"
    ) == dict.fromkeys(["default", *JOBS], True)


@pytest.mark.parametrize("system", SYSTEMS)
def test_nothing_in_it_is_undefined(evaluate: Evaluate, system: str) -> None:
    """Including the arguments of every builder."""
    per_system = "{ inherit (outputs) checks devShells formatter packages; }"
    assert evaluate(
        f"builtins.deepSeq (builtins.mapAttrs (_: value: value.{system}) {per_system}) true"
    )


def test_the_check_of_the_units_builds_the_units_of_each_job(evaluate: Evaluate) -> None:
    units = [f"tailscale-{job}.{kind}" for job in JOBS for kind in ("service", "timer")]
    assert evaluate("outputs.checks.x86_64-linux.units.paths") == units


def test_the_package_matches_the_project(evaluate: Evaluate) -> None:
    """nix/package.nix agrees with pyproject.toml."""
    project, package = PROJECT["project"], evaluate("outputs.packages.x86_64-linux.tsfc")

    def names(requirements: list[str]) -> list[str]:
        return sorted(re.split("[<>=]", requirement)[0] for requirement in requirements)

    assert package["pname"] == project["name"]
    assert package["version"] == project["version"]
    assert package["pyproject"] is True
    assert package["build-system"] == names(PROJECT["build-system"]["requires"])
    assert sorted(package["dependencies"]) == names(project["dependencies"])
    assert package["optional-dependencies"] == {
        extra: names(project["optional-dependencies"][extra]) for extra in ("fleet", "report")
    }
    assert package["meta"] == {
        "description": project["description"],
        "license": project["license"],
        "mainProgram": next(iter(project["scripts"])),
        "platforms": "linux",
    }


@pytest.mark.parametrize("extra", ["fleet", "report"])
def test_an_override_adds_an_extra(evaluate: Evaluate, extra: str) -> None:
    """`override` of nixpkgs calls the package with other arguments."""
    package = "outputs.packages.x86_64-linux.tsfc"
    arguments = f"{{ with{extra.title()} = true; }}"
    added = evaluate(f"(pkgs.callPackage ./nix/package.nix {arguments}).dependencies")
    assert added == evaluate(f"{package}.dependencies ++ {package}.optional-dependencies.{extra}")


def test_the_package_contains_its_sources_and_tests(evaluate: Evaluate) -> None:
    """Tests that need programs of the host are left out."""
    package = evaluate("outputs.packages.x86_64-linux.tsfc")
    tests = {"conftest.py", "core", "fixtures", "offline", "shell", "support", "units"}
    assert set(package["src"]) == {
        "LICENSE",
        "README.md",
        "docs",
        "pyproject.toml",
        "src",
        *(f"tests/{name}" for name in tests),
        "tools/build_hook.py",
    }
    assert package["nativeCheckInputs"] == ["hypothesis", "pytest-xdist", "pytestCheckHook"]


@pytest.mark.parametrize(
    "other",
    [
        "outputs.packages.x86_64-linux.default",
        "(outputs.overlays.default pkgs { }).tsfc",
        "import ./default.nix { inherit pkgs; }",
    ],
)
def test_there_is_one_package(evaluate: Evaluate, other: str) -> None:
    """All attributes and files lead to it."""
    assert evaluate(f"{other} == outputs.packages.x86_64-linux.tsfc")


def test_the_script_of_the_machines_is_python_and_uses_existing_metrics(
    evaluate: Evaluate,
) -> None:
    """Running it needs virtual machines, but finding a typo does not."""
    builders = (
        '{ openssl = "openssl"; nftables = "nftables"; '
        "runCommand = name: _: _: name; writeText = name: _: name; }"
    )
    machines = f"import ./nix/tests/two-nodes.nix {{ pkgs = {builders}; }}"
    script = evaluate(
        f"let machines = {machines}; in builtins.deepSeq machines.nodes machines.testScript"
    )
    ast.parse(script)
    assert set(re.findall(r"tailscale_\w+", script)) <= set(
        re.findall(r"tailscale_\w+", (ROOT / "docs/metrics.md").read_text())
    )
