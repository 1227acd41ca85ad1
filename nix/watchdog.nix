import ./job.nix "watchdog"
