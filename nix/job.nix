# The module of one job: its options and its units are those of the table.
job:
{
  config,
  lib,
  options,
  utils,
  ...
}:
let
  table = import ./table.nix { inherit lib; };
  inherit (config.atro) tailscale;
  cfg = tailscale.${job};
  units = table.installation job (
    builtins.intersectAttrs (table.mkOptions table.shared) tailscale // cfg
  );

  service = sections: {
    description = sections.Unit.Description;
    after = sections.Unit.After or [ ];
    unitConfig = removeAttrs sections.Unit [
      "Description"
      "After"
    ];
    serviceConfig = sections.Service // {
      ExecStart = utils.escapeSystemdExecArgs sections.Service.ExecStart;
    };
  };

  option = "atro.tailscale.${job}";
  metricsPath = cfg.metricsPath or null;
  namesakes = builtins.filter (
    other:
    other != job
    && tailscale ? ${other}
    && tailscale.${other}.enable
    && tailscale.${other}.metricsPath or null == metricsPath
  ) (builtins.attrNames table.jobs);

  # The helpers of one kind, by their names without it.
  helpers =
    suffix: mkUnit:
    builtins.listToAttrs (
      builtins.concatMap (
        name:
        let
          stem = builtins.match "(.*)[.]${suffix}" name;
        in
        lib.optional (stem != null) {
          name = builtins.head stem;
          value = mkUnit units.helpers.${name};
        }
      ) (builtins.attrNames units.helpers)
    );
in
{
  imports = [ ./tailscale.nix ];

  options.atro.tailscale.${job} = {
    enable = lib.mkEnableOption "the job ${job} of tsfc";
  }
  // table.mkOptions table.jobs.${job}.options;

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = config.services.tailscale.enable;
        message = "atro.tailscale.${job}.enable is true, but there is no tailscaled: set services.tailscale.enable = true.";
      }
    ]
    ++ table.areVisible "atro.tailscale" table.shared tailscale
    ++ table.areVisible option table.jobs.${job}.options cfg
    ++ lib.optional (metricsPath != null) {
      assertion = namesakes == [ ];
      message = "${option}.metricsPath is ${metricsPath}, but so is that of ${toString namesakes}: give each job a file of its own.";
    };

    systemd = {
      services = {
        "tailscale-${job}" = service units;
      }
      // helpers "service" service;
      timers."tailscale-${job}" = {
        description = units.Unit.Description;
        wantedBy = [ units.Install.WantedBy ];
        timerConfig = units.Timer;
      };
      tmpfiles.rules = units.tmpfiles;
    }
    # Not everything that evaluates modules and has services and timers has sockets.
    // lib.optionalAttrs (options ? systemd.sockets) {
      sockets = helpers "socket" (sections: {
        description = sections.Unit.Description;
        wantedBy = [ sections.Install.WantedBy ];
        socketConfig = sections.Socket;
      });
    };
  };
}
