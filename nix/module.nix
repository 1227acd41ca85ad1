# All four jobs: atro.tailscale.{exporter,native-metrics,keepalive,watchdog}.enable.
{
  imports = [
    ./exporter.nix
    ./native-metrics.nix
    ./keepalive.nix
    ./watchdog.nix
  ];
}
