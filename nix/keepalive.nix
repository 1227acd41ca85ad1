{
  config,
  lib,
  utils,
  ...
}:
let
  cfg = config.atro.tailscale.keepalive;
  job = import ./job.nix { inherit config lib utils; };
  description = "Pings to all online Tailscale peers, so that NAT mappings stay open";
  writesMetrics = cfg.metricsPath != null;

  # `shared` and `labels` are those of all jobs; the agent gives them to its jobs itself.
  arguments =
    shared: labels:
    shared
    ++ lib.optionals writesMetrics [
      "--metrics-path"
      cfg.metricsPath
    ]
    ++ lib.concatMap (peer: [
      "--exclude-peer"
      peer
    ]) cfg.excludePeers
    ++ lib.concatMap (system: [
      "--exclude-os"
      system
    ]) cfg.excludeOs
    ++ labels
    ++ cfg.extraArgs;
in
{
  imports = [ ./tailscale.nix ];

  options.atro.tailscale.keepalive = {
    enable = lib.mkEnableOption "the job keepalive of tsfc";
    interval = job.mkIntervalOption "10s";
    excludePeers = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      description = "Peers that get no pings, by label `peer`, FQDN, Tailscale IP, StableNodeID or host name.";
    };
    excludeOs = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      example = [
        "iOS"
        "android"
      ];
      description = "Operating systems whose peers get no pings, which would drain batteries.";
    };
    metricsPath = job.mkMetricsPathOption null;
    extraArgs = job.extraArgsOption;
  };

  config = lib.mkIf cfg.enable {
    assertions = job.assertions "keepalive" "metricsPath" cfg.metricsPath;

    atro.tailscale.agent.jobs.keepalive = {
      inherit (cfg) interval;
      arguments = arguments [ ] [ ];
      output = cfg.metricsPath;
    };

    systemd.services.${job.unlessInAgent "tailscale-keepalive"} = {
      inherit description;
      after = [ "tailscaled.service" ];
      unitConfig.StartLimitIntervalSec = 0;
      serviceConfig =
        job.serviceConfig
        // lib.optionalAttrs writesMetrics (job.writable "keepalive" cfg.metricsPath)
        // {
          ExecStart = job.execStart "keepalive" (arguments job.socketArguments job.labelArguments);
          SyslogIdentifier = "tailscale-keepalive";
          TimeoutStartSec = "60s";
          # The CLI, if it is used, is one process for each peer.
          MemoryMax = "1G";
          TasksMax = 4096;
          Nice = 19;
          IOSchedulingClass = "idle";
        };
    };

    systemd.timers.${job.unlessInAgent "tailscale-keepalive"} = job.timer description cfg.interval;
    systemd.tmpfiles.rules = lib.optionals writesMetrics (job.directoryRules cfg.metricsPath);
  };
}
