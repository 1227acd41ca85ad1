# A NixOS host with all four jobs, whose files node_exporter serves.
{
  imports = [ ../nix/module.nix ];

  services.tailscale.enable = true;

  atro.tailscale = {
    exporter.enable = true;
    native-metrics.enable = true;
    keepalive.enable = true;
    watchdog = {
      enable = true;
      # A peer behind a hard NAT is never direct: no restart helps.
      excludePeers = [ "phone" ];
    };
  };

  services.prometheus.exporters.node = {
    enable = true;
    enabledCollectors = [ "textfile" ];
    extraFlags = [ "--collector.textfile.directory=/var/lib/alloy" ];
  };
}
