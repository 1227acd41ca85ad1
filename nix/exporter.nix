{
  config,
  lib,
  utils,
  ...
}:
let
  cfg = config.atro.tailscale.exporter;
  job = import ./job.nix { inherit config lib utils; };
  description = "Per-peer metrics from the status of tailscaled";

  # `shared` and `labels` are those of all jobs; the agent gives them to its jobs itself.
  arguments =
    shared: labels:
    shared
    ++ lib.concatMap (pattern: [
      "--accept-health"
      pattern
    ]) cfg.acceptHealth
    ++ [
      "--metrics-path"
      cfg.metricsPath
    ]
    ++ lib.optional cfg.omitUsers "--omit-users"
    ++ labels
    ++ cfg.extraArgs;
in
{
  imports = [ ./tailscale.nix ];

  options.atro.tailscale.exporter = {
    enable = lib.mkEnableOption "the job exporter of tsfc";
    interval = job.mkIntervalOption "30s";
    acceptHealth = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      description = "Shell patterns of health messages that are counted apart from the others.";
    };
    omitUsers = lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = "Leave the label `user`, the login names of the peers' owners, empty.";
    };
    metricsPath = job.mkMetricsPathOption "tailscale-peers.prom";
    extraArgs = job.extraArgsOption;
  };

  config = lib.mkIf cfg.enable {
    assertions = job.assertions "exporter" "metricsPath" cfg.metricsPath;

    atro.tailscale.agent.jobs.exporter = {
      inherit (cfg) interval;
      arguments = arguments [ ] [ ];
      output = cfg.metricsPath;
    };

    systemd.services.${job.unlessInAgent "tailscale-exporter"} = {
      inherit description;
      after = [ "tailscaled.service" ];
      unitConfig.StartLimitIntervalSec = 0;
      serviceConfig =
        job.serviceConfig
        // job.writable "exporter" cfg.metricsPath
        // {
          ExecStart = job.execStart "exporter" (arguments job.socketArguments job.labelArguments);
          SyslogIdentifier = "tailscale-exporter";
          TimeoutStartSec = "30s";
        };
    };

    systemd.timers.${job.unlessInAgent "tailscale-exporter"} = job.timer description cfg.interval;
    systemd.tmpfiles.rules = job.directoryRules cfg.metricsPath;
  };
}
