# Options of all jobs.
{ lib, pkgs, ... }:
let
  types = import ./types.nix { inherit lib; };
in
{
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

    visiblePaths = lib.mkOption {
      type = lib.types.listOf types.absolutePath;
      default = [ ];
      description = "Paths that the sandbox shows to the jobs, read-only.";
    };
  };
}
