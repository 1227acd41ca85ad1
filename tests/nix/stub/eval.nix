# Evaluates a module with a configuration, without nixpkgs.
{
  module,
  config ? { },
  host ? ./host.nix,
}:
let
  lib = import ./lib.nix;
  package = name: {
    type = "derivation";
    outPath = "/nix/store/00000000000000000000000000000000-${name}";
    inherit name;
  };
in
lib.evalModules {
  specialArgs = {
    pkgs.tsfc = package "tsfc";
    # As in nixos/lib/utils.nix.
    utils.escapeSystemdExecArgs =
      arguments:
      lib.concatStringsSep " " (
        map (
          argument: builtins.replaceStrings [ "%" "$" ] [ "%%" "$$" ] (builtins.toJSON (toString argument))
        ) arguments
      );
  };
  modules = [
    host
    module
    config
  ];
}
