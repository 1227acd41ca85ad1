{
  config,
  lib,
  utils,
  ...
}:
let
  cfg = config.atro.tailscale.native-metrics;
  job = import ./job.nix { inherit config lib utils; };
  description = "Metrics that tailscaled itself exposes";

  # `shared` and `labels` are those of all jobs; the agent gives them to its jobs itself.
  arguments =
    shared: labels:
    shared
    ++ [
      "--metrics-path"
      cfg.metricsPath
    ]
    ++ labels
    ++ cfg.extraArgs;
in
{
  imports = [ ./tailscale.nix ];

  options.atro.tailscale.native-metrics = {
    enable = lib.mkEnableOption "the job native-metrics of tsfc";
    interval = job.mkIntervalOption "15s";
    metricsPath = job.mkMetricsPathOption "tailscale-native.prom";
    extraArgs = job.extraArgsOption;
  };

  config = lib.mkIf cfg.enable {
    assertions = job.assertions "native-metrics" "metricsPath" cfg.metricsPath;

    atro.tailscale.agent.jobs.native-metrics = {
      inherit (cfg) interval;
      arguments = arguments [ ] [ ];
      output = cfg.metricsPath;
    };

    systemd.services.${job.unlessInAgent "tailscale-native-metrics"} = {
      inherit description;
      after = [ "tailscaled.service" ];
      unitConfig.StartLimitIntervalSec = 0;
      serviceConfig =
        job.serviceConfig
        // job.writable "native-metrics" cfg.metricsPath
        // {
          ExecStart = job.execStart "native-metrics" (arguments job.socketArguments job.labelArguments);
          SyslogIdentifier = "tailscale-native-metrics";
          TimeoutStartSec = "30s";
        };
    };

    systemd.timers.${job.unlessInAgent "tailscale-native-metrics"} = job.timer description cfg.interval;
    systemd.tmpfiles.rules = job.directoryRules cfg.metricsPath;
  };
}
