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
in
{
  imports = [ ./tailscale.nix ];

  options.atro.tailscale.native-metrics = {
    enable = lib.mkEnableOption "the job native-metrics of tsfc";
    interval = job.mkIntervalOption "15s";
    metricsPath = job.mkMetricsPathOption "/var/lib/alloy/tailscale-native.prom";
    extraArgs = job.extraArgsOption;
  };

  config = lib.mkIf cfg.enable {
    assertions = job.assertions "native-metrics" "metricsPath" cfg.metricsPath;

    systemd.services.tailscale-native-metrics = {
      inherit description;
      after = [ "tailscaled.service" ];
      unitConfig.StartLimitIntervalSec = 0;
      serviceConfig =
        job.serviceConfig
        // job.writable "native-metrics" cfg.metricsPath
        // {
          ExecStart = job.execStart "native-metrics" (
            job.socketArguments
            ++ [
              "--metrics-path"
              cfg.metricsPath
            ]
            ++ cfg.extraArgs
          );
          SyslogIdentifier = "tailscale-native-metrics";
          TimeoutStartSec = "30s";
        };
    };

    systemd.timers.tailscale-native-metrics = job.timer description cfg.interval;
    systemd.tmpfiles.rules = job.directoryRules cfg.metricsPath;
  };
}
