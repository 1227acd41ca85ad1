{
  lib,
  python3Packages,
  testers,
  withFleet ? false,
  withReport ? false,
}:

let
  inherit (lib.importTOML ../pyproject.toml) project;
in
python3Packages.buildPythonApplication rec {
  pname = project.name;
  inherit (project) version;
  pyproject = true;

  # Without tests/nix and tests/systemd, which need programs of the host.
  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../LICENSE
      ../README.md
      ../docs
      ../pyproject.toml
      ../src
      ../tests/conftest.py
      ../tests/core
      ../tests/fixtures
      ../tests/offline
      ../tests/shell
      ../tests/support
      ../tests/units
      ../tools/build_hook.py
    ];
  };

  # The wheel has the manual pages and the completions at the places that nixpkgs uses.
  build-system = with python3Packages; [
    argparse-manpage
    hatch-fancy-pypi-readme
    hatchling
    shtab
  ];

  dependencies =
    (with python3Packages; [
      httptools
      msgspec
      prometheus-client
      returns
      rich
      zstandard
    ])
    ++ lib.optionals withFleet optional-dependencies.fleet
    ++ lib.optionals withReport optional-dependencies.report;

  optional-dependencies = {
    fleet = [
      python3Packages.distributed
      python3Packages.fsspec
    ];
    report = [ python3Packages.jinja2 ];
  };

  nativeCheckInputs = with python3Packages; [
    hypothesis
    pytest-xdist
    pytestCheckHook
  ];

  pythonImportsCheck = [ "tsfc" ];

  passthru.tests.two-nodes = testers.runNixOSTest ./tests/two-nodes.nix;

  meta = {
    inherit (project) description;
    license = lib.licenses.mit;
    mainProgram = "tsfc";
    platforms = lib.platforms.linux;
  };
}
