{
  config,
  lib,
  options,
  utils,
  ...
}:
let
  inherit (config.atro) tailscale;
  cfg = tailscale.watchdog;
  job = import ./job.nix { inherit config lib utils; };
  description = "Restart of tailscaled when a peer is stuck on relay";
  helperDirectory = "/run/tailscale-watchdog";
  portFile = "/run/tailscale-watchdog-restart/port.env";
  restartSocket = "${helperDirectory}/restart.sock";
  notifySocket = "${helperDirectory}/notify.sock";
  isNotifying = cfg.notifyExec != null;

  # What the services have in common that a socket starts for each connection.
  onSocket = {
    Type = "oneshot";
    StandardInput = "socket";
    CapabilityBoundingSet = "";
    NoNewPrivileges = true;
    ProtectSystem = "strict";
    ProtectHome = true;
    PrivateTmp = true;
    PrivateDevices = true;
    ProtectKernelTunables = true;
    ProtectControlGroups = true;
    RestrictNamespaces = true;
    RestrictRealtime = true;
    RestrictSUIDSGID = true;
    LockPersonality = true;
    SystemCallArchitectures = "native";
    SystemCallFilter = "@system-service";
    SystemCallErrorNumber = "EPERM";
    UMask = "0077";
  };

  # The same script as in the unit file in src/tsfc/units/files.
  restartScript = ''
    show() { systemctl show --property="$2" --value "$1"; }
    refuse() { echo "$UNIT $*"; exit 1; }

    # The request is the first line. None means a restart: then some clients keep the connection
    # open, so that the end of the input does not come.
    request=$(timeout 1 head -n 1 2>/dev/null | head -c 16)
    exec </dev/null
    port=$RUNTIME_DIRECTORY/port.env
    rm -f "$port"
    case $request in
      "" | restart) ;;
      other-port)
        case $(show "$UNIT" ExecStart) in
          *[$]PORT[!A-Za-z0-9_]* | *[$]{PORT}*) ;;
          *) refuse "does not use the variable PORT in ExecStart=, so its port is not changed" ;;
        esac
        case $(show "$UNIT" EnvironmentFiles) in
          *"$port (ignore_errors=yes)") ;;
          *) refuse "does not read $port after its other environment files" ;;
        esac ;;
      *) refuse "is not changed: the request is neither restart nor other-port" ;;
    esac

    read -r uptime _ </proc/uptime
    now=''${uptime%.*}
    stamp=$RUNTIME_DIRECTORY/restarted

    # Restart at most once per cooldown, even if the watchdog has lost its state. The margin
    # of 10 % is for the time between the decision of the watchdog and its request.
    limit=$((COOLDOWN * 9 / 10))
    [ "$limit" -ge 10 ] || limit=10
    restarted=$((now - limit)) ours=
    [ ! -s "$stamp" ] || read -r restarted ours <"$stamp"
    age=$((now - restarted))
    [ "$age" -ge "$limit" ] ||
      refuse "was restarted $age s ago; it is restarted at most once in $limit s"

    # If the unit has changed since that restart, somebody else stopped or started it.
    changed=$(show "$UNIT" StateChangeTimestampMonotonic)
    if [ "$changed" != "$ours" ]; then
      load=$(show "$UNIT" LoadState)
      state=$(show "$UNIT" ActiveState)
      case $load/$state in
        loaded/inactive | loaded/deactivating)
          refuse "is stopped; a unit that was stopped on purpose is not restarted" ;;
        loaded/active)
          asked=$(show "$HELPER" InactiveExitTimestampMonotonic)
          started=$(show "$UNIT" ActiveEnterTimestampMonotonic)
          age=$(((asked - started) / 1000000))
          limit=$(((COOLDOWN < MAX_RELAY ? COOLDOWN : MAX_RELAY) * 9 / 10))
          [ "$age" -ge "$limit" ] ||
            refuse "was started $age s ago; it is not restarted in the first $limit s" ;;
      esac
    fi

    # Written before the restart, so that it counts even if this helper is killed.
    echo "$now" >"$stamp"
    systemctl reset-failed "$UNIT" 2>/dev/null || true
    status=0
    # Only this start uses another port: 0 means any free one.
    [ "$request" != other-port ] || echo PORT=0 >"$port"
    systemctl restart "$UNIT" || status=$?
    rm -f "$port"
    changed=$(show "$UNIT" StateChangeTimestampMonotonic)
    echo "$now $changed" >"$stamp"
    [ "$status" -ne 0 ] || echo done
    exit "$status"
  '';

  isDefaultSocket = builtins.elem tailscale.socket [
    "/run/tailscale/tailscaled.sock"
    "/var/run/tailscale/tailscaled.sock"
  ];
  # 1500 is the priority of the default.
  isGiven = option: option.highestPrio < 1500;
  isUnitGiven = isGiven options.atro.tailscale.watchdog.unit;
  isGuarded = cfg.policy == "guarded";
  hasOtherPort = isGuarded && builtins.elem "other-port" cfg.remedies;
  hasKeepalive = tailscale ? keepalive && tailscale.keepalive.enable;

  # `shared` and `labels` are those of all jobs; the agent gives them to its jobs itself.
  arguments =
    shared: labels:
    [
      "--restart-socket"
      restartSocket
    ]
    ++ shared
    ++ [
      "--max-relay-seconds"
      (toString cfg.maxRelaySeconds)
      "--cooldown-seconds"
      (toString cfg.cooldownSeconds)
    ]
    ++ lib.concatMap (peer: [
      "--exclude-peer"
      peer
    ]) cfg.excludePeers
    ++ lib.optionals isGuarded [
      "--policy"
      cfg.policy
      "--budget"
      (toString cfg.budget)
      "--remedies"
      (lib.concatStringsSep "," cfg.remedies)
    ]
    ++ lib.optional cfg.dryRun "--dry-run"
    ++ lib.optionals isNotifying [
      "--notify-socket"
      notifySocket
    ]
    ++ [
      "--unit"
      cfg.unit
      "--metrics-path"
      cfg.metricsPath
    ]
    ++ labels
    ++ cfg.extraArgs;
in
{
  imports = [ ./tailscale.nix ];

  options.atro.tailscale.watchdog = {
    enable = lib.mkEnableOption "the job watchdog of tsfc";
    interval = job.mkIntervalOption "1min";
    maxRelaySeconds = lib.mkOption {
      type = job.types.seconds;
      default = 600;
      description = "Restart tailscaled if a peer is on relay for longer than this.";
    };
    cooldownSeconds = lib.mkOption {
      type = job.types.seconds;
      default = 600;
      description = "Time after a restart without another one.";
    };
    excludePeers = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      description = "Peers that never cause a restart, by label `peer`, FQDN, Tailscale IP, StableNodeID or host name.";
    };
    policy = lib.mkOption {
      type = lib.types.enum [
        "documented"
        "guarded"
      ];
      default = "documented";
      description = ''
        `documented` restarts tailscaled whenever a peer is on relay for too long, `guarded` only
        where a restart is likely to help.
      '';
    };
    budget = lib.mkOption {
      type = lib.types.ints.between 0 24;
      default = 6;
      description = "Maximum number of restarts in 24 hours that did not help, with the policy `guarded`.";
    };
    remedies = lib.mkOption {
      type = job.types.remedies;
      default = [ "restart" ];
      description = ''
        What the policy `guarded` may do: `restart`, and `other-port`, which also restarts
        tailscaled on another UDP port. It helps where a router blocks the port or has a NAT entry
        that is stuck. Do not use it where a firewall opens only one port for tailscaled.
      '';
    };
    dryRun = lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = "Log decisions, but keep no state and restart nothing.";
    };
    notifyExec = lib.mkOption {
      type = lib.types.nullOr job.types.absolutePath;
      default = null;
      description = ''
        Program to start when the watchdog has news, such as a restart. Its standard input has a
        line of JSON for each. Its unit has network access.
      '';
    };
    unit = lib.mkOption {
      type = job.types.serviceName;
      default = "tailscaled.service";
      description = "Unit to restart. Required with the socket of another tailscaled.";
    };
    metricsPath = job.mkMetricsPathOption "tailscale-watchdog.prom";
    extraArgs = job.extraArgsOption;
  };

  config = lib.mkIf cfg.enable {
    assertions = job.assertions "watchdog" "metricsPath" cfg.metricsPath ++ [
      {
        assertion = isDefaultSocket || isUnitGiven || cfg.dryRun;
        message = "atro.tailscale.socket is ${tailscale.socket}, which may be that of another tailscaled than ${cfg.unit}: set atro.tailscale.watchdog.unit to the unit to restart.";
      }
    ]
    ++ map (name: {
      assertion = isGuarded || !isGiven options.atro.tailscale.watchdog.${name};
      message = "atro.tailscale.watchdog.${name} is an option of the guarded policy: set atro.tailscale.watchdog.policy = \"guarded\".";
    }) [
      "budget"
      "remedies"
    ];

    warnings = lib.optional (!hasKeepalive) "atro.tailscale.watchdog.enable is true without keepalive: idle peers fall back to a relay, and each can cause a restart. Set atro.tailscale.keepalive.enable = true.";

    atro.tailscale.agent.jobs.watchdog = {
      inherit (cfg) interval;
      arguments = arguments [ ] [ ];
      output = cfg.metricsPath;
    };

    systemd = {
      services.${job.unlessInAgent "tailscale-watchdog"} = {
        inherit description;
        after = [ "tailscaled.service" ];
        unitConfig.StartLimitIntervalSec = 0;
        serviceConfig =
          job.serviceConfig
          // job.writable "watchdog" cfg.metricsPath
          // {
            ExecStart = job.execStart "watchdog" (arguments job.socketArguments job.labelArguments);
            SyslogIdentifier = "tailscale-watchdog";
            TimeoutStartSec = "240s";
            StateDirectory = "tailscale-watchdog";
            BindReadOnlyPaths = job.serviceConfig.BindReadOnlyPaths ++ [ "-${helperDirectory}" ];
          };
      };

      # The file only exists during a restart on another port. It wins against the port of the unit.
      services.${if hasOtherPort then lib.removeSuffix ".service" cfg.unit else null} = {
        serviceConfig.EnvironmentFile = lib.mkAfter [ "-${portFile}" ];
      };

      # The helper restarts the unit: the watchdog itself is not privileged.
      services."tailscale-watchdog-restart@" = {
        description = "Restart of ${cfg.unit} for tailscale-watchdog.service";
        unitConfig.CollectMode = "inactive-or-failed";
        serviceConfig = onSocket // {
          # The request is a word from the socket, the output the response. The watchdog expects
          # "done".
          Environment = ''"UNIT=${cfg.unit}" "COOLDOWN=${toString cfg.cooldownSeconds}" "MAX_RELAY=${toString cfg.maxRelaySeconds}" "HELPER=%n"'';
          ExecStart = utils.escapeSystemdExecArgs [
            "/bin/sh"
            "-euc"
            restartScript
          ];
          RuntimeDirectory = "tailscale-watchdog-restart";
          RuntimeDirectoryMode = "0700";
          RuntimeDirectoryPreserve = true;
          TimeoutStartSec = "240s";
          StandardOutput = "socket";
          StandardError = "socket";
          PrivateNetwork = true;
          RestrictAddressFamilies = "AF_UNIX";
          MemoryDenyWriteExecute = true;
        };
      };

      # The sandbox of the watchdog has no network.
      services.${if isNotifying then "tailscale-watchdog-notify@" else null} = {
        description = "Notification of people by tailscale-watchdog.service";
        unitConfig.CollectMode = "inactive-or-failed";
        serviceConfig = onSocket // {
          ExecStart = utils.escapeSystemdExecArgs [ cfg.notifyExec ];
          StandardOutput = "journal";
          StandardError = "journal";
          SyslogIdentifier = "tailscale-watchdog-notify";
          SyslogLevel = "notice";
          LogLevelMax = "notice";
          TimeoutStartSec = "10s";
          DynamicUser = true;
          RestrictAddressFamilies = "AF_UNIX AF_INET AF_INET6 AF_NETLINK";
          MemoryMax = "512M";
          TasksMax = 128;
        };
      };

      timers.${job.unlessInAgent "tailscale-watchdog"} = job.timer description cfg.interval;
      tmpfiles.rules = job.directoryRules cfg.metricsPath;
    }
    # Some users of these modules, such as system-manager, have services and timers but no sockets.
    // lib.optionalAttrs (options ? systemd.sockets) {
      sockets.tailscale-watchdog-restart = {
        description = "Requests of tailscale-watchdog.service for a restart of ${cfg.unit}";
        wantedBy = [ "sockets.target" ];
        socketConfig = {
          ListenStream = restartSocket;
          SocketMode = "0600";
          Accept = true;
          MaxConnections = 1;
          TriggerLimitIntervalSec = 0;
          RemoveOnStop = true;
        };
      };
      sockets.${if isNotifying then "tailscale-watchdog-notify" else null} = {
        description = "News of tailscale-watchdog.service";
        before = [
          "tailscale-watchdog.service"
          "tailscale-agent.service"
        ];
        wantedBy = [ "sockets.target" ];
        socketConfig = {
          ListenStream = notifySocket;
          SocketMode = "0600";
          Accept = true;
          MaxConnections = 4;
          TriggerLimitIntervalSec = 0;
          RemoveOnStop = true;
        };
      };
    };
  };
}
