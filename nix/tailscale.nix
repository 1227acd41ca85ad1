# The options that the jobs share.
{ lib, pkgs, ... }:
let
  table = import ./table.nix { inherit lib; };
  options = table.mkOptions table.shared;
in
{
  options.atro.tailscale = options // {
    package = lib.mkOption {
      type = lib.types.package;
      default = pkgs.tsfc or (pkgs.callPackage ./package.nix { });
      defaultText = lib.literalExpression "pkgs.tsfc or (pkgs.callPackage ./package.nix { })";
      inherit (options.package) description;
    };
    tailscalePackage = options.tailscalePackage // {
      type = lib.types.nullOr lib.types.package;
    };
  };
}
