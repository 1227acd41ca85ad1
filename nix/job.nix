# What the modules of the jobs have in common.
#
# The same units, with the default options, are in src/tsfc/units/files; docs/units.md explains
# the sandbox.
{
  config,
  lib,
  utils,
}:
let
  inherit (config.atro) tailscale;
  types = import ./types.nix { inherit lib; };
  places = import ./places.nix { inherit lib; };

  own = import ./own-directory.nix;

  capability = {
    CapabilityBoundingSet = "CAP_DAC_OVERRIDE";
    AmbientCapabilities = "CAP_DAC_OVERRIDE";
  };

  # Directories that the messages suggest.
  metricsDirectory = "/var/lib/alloy";
  captureDirectory = "/var/lib/tailscale-capture";

  # Jobs with an option metricsPath, and the agent.
  metricsJobs = [
    "agent"
    "exporter"
    "keepalive"
    "native-metrics"
    "watchdog"
  ];

  # Assert that the sandbox can show a path without showing what is not the jobs'.
  visible = option: path: problem: {
    assertion = problem == null;
    message = "${option} is ${path}, which is ${toString problem}.";
  };
in
{
  inherit own types;

  # The name of a unit that a job only has if the agent does not run it; else null.
  unlessInAgent = unit: if tailscale.agent.enable then null else unit;

  # Options.

  mkIntervalOption =
    default:
    lib.mkOption {
      type = types.timeSpan;
      inherit default;
      description = "Time between the starts of two runs, and from boot to the first run.";
    };

  # `file` is the name of the file in metricsDir; null if the job writes no metrics by default.
  mkMetricsPathOption =
    file:
    lib.mkOption (
      {
        type = if file == null then lib.types.nullOr types.metricsPath else types.metricsPath;
        default = if file == null then null else "${tailscale.metricsDir}/${file}";
        description = "File to write metrics to. A missing directory is created.";
      }
      // lib.optionalAttrs (file != null) {
        defaultText = lib.literalExpression ''"''${config.atro.tailscale.metricsDir}/${file}"'';
      }
    );

  extraArgsOption = lib.mkOption {
    type = lib.types.listOf lib.types.str;
    default = [ ];
    description = "Additional arguments of the job.";
  };

  # Assertions about a job that writes the file `output`; null if it writes none.
  assertions =
    job: outputOption: output:
    let
      isWriter =
        other:
        other != job
        && tailscale ? ${other}
        && tailscale.${other}.enable
        && tailscale.${other}.metricsPath == output;
      otherWriters = builtins.filter isWriter metricsJobs;
    in
    [
      {
        assertion = config.services.tailscale.enable;
        message = "atro.tailscale.${job}.enable is true, but tailscaled is not enabled: set services.tailscale.enable = true.";
      }
      (visible "atro.tailscale.socket" tailscale.socket (places.socketProblem tailscale.socket))
    ]
    ++ lib.optionals (output != null) [
      (visible "atro.tailscale.${job}.${outputOption}" output (
        places.outputProblem output (if job == "capture" then captureDirectory else metricsDirectory)
      ))
      {
        assertion = otherWriters == [ ];
        message = "atro.tailscale.${job}.${outputOption} is ${output}, which ${toString otherWriters} writes as well: give each job a file of its own.";
      }
    ];

  # Directives of a service.

  execStart =
    job: arguments:
    utils.escapeSystemdExecArgs (
      [
        "${tailscale.package}/bin/tsfc"
        job
      ]
      ++ arguments
    );

  socketArguments =
    lib.optionals (tailscale.tailscalePackage != null) [
      "--tailscale"
      "${tailscale.tailscalePackage}/bin/tailscale"
    ]
    ++ [
      "--socket"
      tailscale.socket
    ];

  labelArguments = lib.concatMap (name: [
    "--label"
    "${name}=${tailscale.labels.${name}}"
  ]) (builtins.attrNames tailscale.labels);

  # Directives of a job that writes no file: its sandbox, for the most part.
  serviceConfig = {
    Type = "oneshot";
    SyslogLevel = "notice";
    LogLevelMax = "notice";
    DynamicUser = true;
    CapabilityBoundingSet = "";
    NoNewPrivileges = true;
    ProtectSystem = "strict";
    ProtectHome = "tmpfs";
    TemporaryFileSystem = [
      "/etc:ro"
      "/run:ro"
      "/var:ro"
    ];
    BindReadOnlyPaths = [
      "-/etc/ld.so.cache"
      "-${builtins.dirOf tailscale.socket}"
    ]
    ++ map (path: "-${path}") tailscale.visiblePaths;
    ReadOnlyPaths = [
      "/proc"
      "/sys"
    ];
    PrivateDevices = true;
    PrivateNetwork = true;
    RestrictAddressFamilies = "AF_UNIX";
    RestrictNamespaces = true;
    RestrictRealtime = true;
    LockPersonality = true;
    MemoryDenyWriteExecute = true;
    SystemCallArchitectures = "native";
    SystemCallFilter = "~@clock @cpu-emulation @debug @module @mount @obsolete @privileged @raw-io @reboot @resources @swap";
    SystemCallErrorNumber = "EPERM";
    UMask = "0077";
    MemoryMax = "512M";
    MemorySwapMax = 0;
    TasksMax = 128;
    OOMScoreAdjust = 1000;
  };

  # Additions for a job that writes metrics. If the directory may belong to any user, the job needs
  # a capability; the watchdog needs it for the socket of its helper, too.
  writable =
    job: path:
    let
      directory = builtins.dirOf path;
      hasCapability = directory != own.directory || job == "watchdog";
    in
    {
      BindPaths = [ "-${directory}" ];
    }
    // (if hasCapability then capability else { SupplementaryGroups = own.group; });

  # Additions for a job that writes another file, and its default directory.
  inherit capability captureDirectory;

  # Rules of tmpfiles.d(5) for the directory of a metrics file.
  directoryRules =
    path:
    if builtins.dirOf path == own.directory then
      [ "d ${own.directory} 0775 root ${own.group} -" ]
    else
      [ "d ${builtins.dirOf path} - - - -" ];

  timer = description: interval: {
    inherit description;
    wantedBy = [ "timers.target" ];
    timerConfig = {
      AccuracySec = "100ms";
      OnBootSec = interval;
      OnUnitActiveSec = interval;
    };
  };
}
