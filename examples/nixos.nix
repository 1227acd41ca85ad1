# A NixOS host with the default jobs; node_exporter serves their metrics.
{
  imports = [ ../nix/module.nix ];

  services.tailscale.enable = true;

  atro.tailscale = {
    exporter.enable = true;
    native-metrics.enable = true;
    keepalive.enable = true;
    watchdog = {
      enable = true;
      # A restart cannot help a peer behind a hard NAT, which is never direct.
      excludePeers = [ "phone" ];
    };
  };

  services.prometheus.exporters.node = {
    enable = true;
    enabledCollectors = [ "textfile" ];
    extraFlags = [ "--collector.textfile.directory=/var/lib/alloy" ];
  };
}
