# A stub of nixpkgs for flake.nix and nix/package.nix. A builder returns its arguments.
let
  built = args: args // { type = "derivation"; };

  systems = [
    "aarch64-linux"
    "x86_64-linux"
  ];

  pythonPackages = [
    "argparse-manpage"
    "distributed"
    "fsspec"
    "hatch-fancy-pypi-readme"
    "hatchling"
    "httptools"
    "hypothesis"
    "jinja2"
    "msgspec"
    "prometheus-client"
    "pytest-xdist"
    "pytestCheckHook"
    "returns"
    "rich"
    "shtab"
    "zstandard"
  ];

  lib = {
    inherit (builtins) concatMap;

    optionals = condition: list: if condition then list else [ ];

    fileset = {
      toSource =
        { root, fileset }:
        map (builtins.replaceStrings [ "${toString root}/" ] [ "" ]) fileset;
      unions = map (
        path: if builtins.pathExists path then toString path else throw "no ${toString path}"
      );
    };

    genAttrs =
      names: f:
      builtins.listToAttrs (
        map (name: {
          inherit name;
          value = f name;
        }) names
      );

    importTOML = file: fromTOML (builtins.readFile file);

    licenses.mit = "MIT";
    platforms.linux = "linux";
    trivial.release = "release";

    # Returns the units of the enabled jobs only.
    nixosSystem =
      { modules }:
      let
        inherit (builtins.head (builtins.filter builtins.isAttrs modules)) atro;
        isEnabled = job: atro.tailscale.${job}.enable;
        units = lib.concatMap (job: [
          "tailscale-${job}.service"
          "tailscale-${job}.timer"
        ]) (builtins.filter isEnabled (builtins.attrNames atro.tailscale));
      in
      {
        config = {
          system.build.toplevel.drvPath = "toplevel";
          systemd.units = lib.genAttrs units (unit: { inherit unit; });
        };
      };
  };

  packagesFor =
    system:
    let
      pkgs = {
        inherit lib;

        callPackage =
          file: args:
          let
            package = import file;
          in
          package (builtins.intersectAttrs (builtins.functionArgs package) pkgs // args);

        python3Packages = lib.genAttrs pythonPackages (name: name) // {
          buildPythonApplication = args: built args // { inherit (args.passthru) tests; };
        };

        mkShell = built;
        runCommand =
          name: args: script:
          built (args // { inherit name script; });
        symlinkJoin = built;
        testers.runNixOSTest = test: built { test = toString test; };

        nixfmt = "nixfmt";
        nixfmt-tree = built { name = "nixfmt-tree"; };
        prometheus.cli = "promtool";
        ruff = "ruff";

        stdenv.hostPlatform = { inherit system; };
      };
    in
    pkgs;
in
{
  inherit lib;
  legacyPackages = lib.genAttrs systems packagesFor;
}
