import ./job.nix "native-metrics"
