# The modules of all jobs.
{
  imports = [
    ./exporter.nix
    ./native-metrics.nix
    ./keepalive.nix
    ./watchdog.nix
    ./capture.nix
  ];
}
