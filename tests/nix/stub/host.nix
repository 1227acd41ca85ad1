# The options of NixOS that the modules use.
{ lib, ... }:
let
  inherit (lib) mkOption types;

  text = mkOption {
    type = types.str;
    default = "";
  };
  flag = mkOption {
    type = types.bool;
    default = false;
  };
  texts = mkOption {
    type = types.listOf types.str;
    default = [ ];
  };
  section = mkOption {
    type = types.attrsOf types.anything;
    default = { };
  };
  units =
    options:
    mkOption {
      type = types.attrsOf (types.submodule { inherit options; });
      default = { };
    };
in
{
  options = {
    systemd.services = units {
      description = text;
      after = texts;
      wants = texts;
      partOf = texts;
      restartTriggers = texts;
      wantedBy = texts;
      unitConfig = section;
      serviceConfig = section;
    };
    systemd.timers = units {
      description = text;
      wantedBy = texts;
      timerConfig = section;
    };
    systemd.sockets = units {
      description = text;
      before = texts;
      wantedBy = texts;
      socketConfig = section;
    };
    systemd.tmpfiles.rules = texts;
    users.groups = section;

    assertions = mkOption {
      type = types.listOf types.anything;
      default = [ ];
    };
    warnings = texts;
    services.tailscale.enable = flag;
  };
}
