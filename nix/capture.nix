{
  config,
  lib,
  utils,
  ...
}:
let
  cfg = config.atro.tailscale.capture;
  job = import ./job.nix { inherit config lib utils; };
  description = "Captures of the status of tailscaled";
  directory = builtins.dirOf cfg.output;

  # systemd keeps a state directory in /var/lib/private, which only root may enter.
  isStateDirectory = directory == job.captureDirectory;
in
{
  imports = [ ./tailscale.nix ];

  options.atro.tailscale.capture = {
    enable = lib.mkEnableOption "the job capture of tsfc";
    interval = job.mkIntervalOption "1min";
    output = lib.mkOption {
      type = job.types.capturePath;
      default = "/var/lib/tailscale-capture/status.ndjson.zst";
      description = ''
        Capture to append to.
        A missing directory is created for root only, because a status names people and places.
      '';
    };
    redact = lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = "Replace names, keys, addresses, users, tags and domains by pseudonyms.";
    };
    extraArgs = job.extraArgsOption;
  };

  config = lib.mkIf cfg.enable {
    assertions = job.assertions "capture" "output" cfg.output;

    systemd.services.tailscale-capture = {
      inherit description;
      after = [ "tailscaled.service" ];
      unitConfig.StartLimitIntervalSec = 0;
      serviceConfig =
        job.serviceConfig
        // (
          if isStateDirectory then
            {
              StateDirectory = "tailscale-capture";
              StateDirectoryMode = "0700";
            }
          else
            job.capability // { BindPaths = [ "-${directory}" ]; }
        )
        // {
          ExecStart = job.execStart "capture" (
            [
              "--max-size"
              "64M"
              "--keep"
              "5"
            ]
            ++ job.socketArguments
            ++ [
              "--output"
              cfg.output
            ]
            ++ lib.optional cfg.redact "--redact"
            ++ cfg.extraArgs
          );
          SyslogIdentifier = "tailscale-capture";
          TimeoutStartSec = "60s";
          Nice = 19;
          IOSchedulingClass = "idle";
        };
    };

    systemd.timers.tailscale-capture = job.timer description cfg.interval;
    systemd.tmpfiles.rules = lib.optional (!isStateDirectory) "d ${directory} :0700 - - -";
  };
}
