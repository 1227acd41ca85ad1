import ./job.nix "capture"
