# Options of all jobs.
{
  config,
  lib,
  options,
  pkgs,
  ...
}:
let
  types = import ./types.nix { inherit lib; };
  own = import ./own-directory.nix;

  isInOwnDirectory =
    name:
    let
      job = config.atro.tailscale.${name} or { enable = false; };
    in
    job.enable && job.metricsPath != null && builtins.dirOf job.metricsPath == own.directory;
  usesOwnDirectory = builtins.any isInOwnDirectory [
    "agent"
    "exporter"
    "keepalive"
    "native-metrics"
    "watchdog"
  ];
in
{
  imports = [ ./agent.nix ];

  options.atro.tailscale = {
    package = lib.mkOption {
      type = lib.types.package;
      default = pkgs.tsfc or (pkgs.callPackage ./package.nix { });
      defaultText = lib.literalExpression "pkgs.tsfc or (pkgs.callPackage ./package.nix { })";
      description = "Package of tsfc.";
    };

    tailscalePackage = lib.mkOption {
      type = lib.types.nullOr lib.types.package;
      default = null;
      description = ''
        Tailscale package whose CLI is used when the socket is unavailable.
        If null, tailscaled counts as down when the socket is unavailable.
      '';
    };

    socket = lib.mkOption {
      type = types.socketPath;
      default = "/run/tailscale/tailscaled.sock";
      description = "LocalAPI socket of tailscaled.";
    };

    metricsDir = lib.mkOption {
      type = types.absolutePath;
      default = "/var/lib/alloy";
      description = "Directory of all metrics files whose path is not set.";
    };

    labels = lib.mkOption {
      type = types.labels;
      default = { };
      description = "Labels of every series of the jobs. They distinguish several tailscaleds of a host.";
    };

    visiblePaths = lib.mkOption {
      type = lib.types.listOf types.absolutePath;
      default = [ ];
      description = "Paths that the sandbox shows to the jobs, read-only.";
    };
  };

  # Users of these modules without NixOS, such as system-manager, may lack groups.
  config = lib.optionalAttrs (options ? users.groups) {
    users.groups = lib.mkIf usesOwnDirectory { ${own.group} = { }; };
  };
}
