import ./job.nix "keepalive"
