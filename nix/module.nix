# All jobs: atro.tailscale.{exporter,native-metrics,keepalive,watchdog,capture}.enable.
{
  imports = [
    ./exporter.nix
    ./native-metrics.nix
    ./keepalive.nix
    ./watchdog.nix
    ./capture.nix
  ];
}
