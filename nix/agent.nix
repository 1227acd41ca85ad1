# All enabled jobs but `capture` in one process, instead of a service and a timer for each.
{
  config,
  lib,
  options,
  utils,
  ...
}:
let
  cfg = config.atro.tailscale.agent;
  job = import ./job.nix { inherit config lib utils; };
  inherit (job) own types;
  names = builtins.filter (name: cfg.jobs ? ${name}) [
    "exporter"
    "native-metrics"
    "keepalive"
    "watchdog"
  ];
  hasWatchdog = cfg.jobs ? watchdog;

  outputs = builtins.filter (output: output != null) (
    map (name: cfg.jobs.${name}.output) names ++ [ cfg.metricsPath ]
  );
  directories = lib.unique (map builtins.dirOf outputs);
  hasCapability = hasWatchdog || directories != [ own.directory ];

  # As in src/tsfc/core/listen_address.py.
  isNear =
    address:
    builtins.any (pattern: builtins.match pattern address != null) [
      "/.*"
      "127[.].*"
      "100[.](6[4-9]|[7-9][0-9]|1[01][0-9]|12[0-7])[.].*"
      "\\[(::|0:0:0:0:0:0:0:)1]:.*"
      "\\[fd7a:115c:a1e0:.*"
    ];

  # Whether a time span has a number of seconds or more; those below 1s are a mistake.
  isLongEnough =
    span:
    builtins.match "(.*[^0-9.])?0*[1-9][0-9]*([.][0-9]+)? *(s.*|m([^s].*)?|h.*|d.*|w.*)?" span != null;

  # A value that begins with "-" needs the "=".
  argumentsOf =
    name:
    let
      inherit (cfg.jobs.${name}) arguments interval;
    in
    [
      "--${name}-interval"
      interval
    ]
    ++ lib.optional (arguments != [ ]) "--${name}-args=${lib.escapeShellArgs arguments}";
in
{
  options.atro.tailscale.agent = {
    enable = lib.mkEnableOption "one process that runs the enabled jobs, instead of timers";
    metricsPath = job.mkMetricsPathOption "tailscale-agent.prom";
    adaptiveKeepalive = lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = "Whether to ping a peer again only before tailscaled gives up its direct path.";
    };
    listen = lib.mkOption {
      type = lib.types.nullOr types.listenAddress;
      default = null;
      description = "Address on which the agent answers HTTP requests.";
    };
    listenAnywhere = lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = "Whether the address may be other than loopback and those of Tailscale.";
    };
    jobs = lib.mkOption {
      type = lib.types.attrsOf lib.types.anything;
      default = { };
      internal = true;
      description = "The enabled jobs: `arguments`, `interval` and `output`.";
    };
  };

  config = lib.mkIf (cfg.enable && names != [ ]) {
    assertions = [
      {
        assertion = cfg.listen != null || !cfg.listenAnywhere;
        message = "atro.tailscale.agent.listenAnywhere has no effect without atro.tailscale.agent.listen; set it, too.";
      }
      {
        assertion = cfg.listen == null || cfg.listenAnywhere || isNear cfg.listen;
        message = "atro.tailscale.agent.listen is ${toString cfg.listen}: everybody in that network could read it; use 127.0.0.1 or a Tailscale IP, or set atro.tailscale.agent.listenAnywhere.";
      }
    ]
    ++
      job.assertions "agent" "metricsPath" cfg.metricsPath
      ++ map (name: {
        assertion = isLongEnough cfg.jobs.${name}.interval;
        message = "atro.tailscale.${name}.interval is ${
          cfg.jobs.${name}.interval
        }: with atro.tailscale.agent.enable it must be 1s or more.";
      }) names;

    systemd.services.tailscale-agent = {
      description = "Jobs of tsfc in one process";
      after = [
        "tailscaled.service"
      ]
      ++ lib.optional (cfg.listen != null) "tailscale-agent.socket"
      ++ lib.optional hasWatchdog "tailscale-watchdog-restart.socket";
      # Another program may hold the address. The jobs run anyway.
      wants = lib.optional (cfg.listen != null) "tailscale-agent.socket";
      partOf = lib.optional (cfg.listen != null) "tailscale-agent.socket";
      # NixOS restarts the socket only with its service.
      restartTriggers = lib.optional (cfg.listen != null) cfg.listen;
      wantedBy = [ "multi-user.target" ];
      unitConfig.StartLimitIntervalSec = 0;
      serviceConfig =
        job.serviceConfig
        // lib.optionalAttrs hasCapability job.capability
        // lib.optionalAttrs (!hasCapability) { SupplementaryGroups = own.group; }
        // lib.optionalAttrs hasWatchdog { StateDirectory = "tailscale-watchdog"; }
        // {
          Type = "notify";
          NotifyAccess = "main";
          ExecStart = job.execStart "agent" (
            [
              "--jobs"
              (lib.concatStringsSep "," names)
            ]
            ++ job.socketArguments
            ++ job.labelArguments
            ++ [
              "--metrics-path"
              cfg.metricsPath
            ]
            ++ lib.optional cfg.adaptiveKeepalive "--adaptive-keepalive"
            ++ lib.optionals (cfg.listen != null) [
              "--listen"
              "systemd"
            ]
            ++ lib.concatMap argumentsOf names
          );
          WatchdogSec = "60s";
          Restart = "on-failure";
          RestartSec = "5s";
          # The agent ends with 75 when only a new process can see tailscaled's socket.
          RestartForceExitStatus = 75;
          RestartPreventExitStatus = 2;
          SuccessExitStatus = 75;
          SyslogIdentifier = "tailscale-agent";
          BindPaths = map (directory: "-${directory}") directories;
          BindReadOnlyPaths =
            job.serviceConfig.BindReadOnlyPaths
            ++ [
              "-/run/systemd/journal"
              "-/run/systemd/notify"
            ]
            ++ lib.optional hasWatchdog "-/run/tailscale-watchdog";
          MemoryMax = "1G";
          TasksMax = 4096;
          TimeoutStopSec = "10s";
        };
    };
    systemd.tmpfiles.rules = job.directoryRules cfg.metricsPath;
    # As in watchdog.nix: not all users of these modules have sockets.
    systemd.${if options ? systemd.sockets then "sockets" else null} =
      lib.optionalAttrs (cfg.listen != null)
        {
          tailscale-agent = {
            description = "HTTP requests to tailscale-agent.service";
            wantedBy = [ "sockets.target" ];
            socketConfig = {
              ListenStream = cfg.listen;
              FreeBind = true;
              SocketMode = "0600";
              FlushPending = true;
              TriggerLimitIntervalSec = 0;
              RemoveOnStop = true;
            };
          };
        };
  };
}
