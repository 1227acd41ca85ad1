{
  description = "See, and keep alive, the peer-to-peer paths of a Tailscale node";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;

      systems = [
        "aarch64-linux"
        "x86_64-linux"
      ];
      forAllSystems = f: lib.genAttrs systems (system: f nixpkgs.legacyPackages.${system});
    in
    {
      packages = forAllSystems (pkgs: rec {
        default = tsfc;
        tsfc = pkgs.callPackage ./nix/package.nix { };
      });

      overlays.default = final: _: {
        tsfc = final.callPackage ./nix/package.nix { };
      };

      nixosModules = {
        default = ./nix/module.nix;
        capture = ./nix/capture.nix;
        exporter = ./nix/exporter.nix;
        keepalive = ./nix/keepalive.nix;
        native-metrics = ./nix/native-metrics.nix;
        watchdog = ./nix/watchdog.nix;
      };

      checks = forAllSystems (
        pkgs:
        let
          inherit (pkgs.stdenv.hostPlatform) system;
          inherit (self.packages.${system}) tsfc;

          jobs = [
            "capture"
            "exporter"
            "keepalive"
            "native-metrics"
            "watchdog"
          ];

          host = lib.nixosSystem {
            modules = [
              self.nixosModules.default
              {
                # A container needs no boot loader and no file systems.
                boot.isContainer = true;
                nixpkgs.hostPlatform = system;
                system.stateVersion = lib.trivial.release;

                services.tailscale.enable = true;
                atro.tailscale = lib.genAttrs jobs (_: { enable = true; });
              }
            ];
          };
        in
        {
          inherit tsfc;
          inherit (tsfc.tests) two-nodes;

          # Evaluate the whole host, to check its assertions, but build only the units.
          units = builtins.seq host.config.system.build.toplevel.drvPath (
            pkgs.symlinkJoin {
              name = "tsfc-units";
              paths = lib.concatMap (job: [
                host.config.systemd.units."tailscale-${job}.service".unit
                host.config.systemd.units."tailscale-${job}.timer".unit
              ]) jobs;
            }
          );

          formatting = pkgs.runCommand "tsfc-formatting" { nativeBuildInputs = [ pkgs.nixfmt ]; } ''
            find ${self} -name '*.nix' -exec nixfmt --check {} +
            touch $out
          '';
        }
      );

      devShells = forAllSystems (pkgs: {
        default = pkgs.mkShell {
          inputsFrom = [ self.packages.${pkgs.stdenv.hostPlatform.system}.tsfc ];
          packages = [
            pkgs.nixfmt-tree
            pkgs.prometheus.cli # promtool
            pkgs.ruff
          ];
          shellHook = ''
            export PYTHONPATH=$PWD/src''${PYTHONPATH:+:$PYTHONPATH}
          '';
        };
      });

      formatter = forAllSystems (pkgs: pkgs.nixfmt-tree);
    };
}
