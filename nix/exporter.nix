import ./job.nix "exporter"
