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
      # Restart tailscaled only where it is likely to help.
      policy = "guarded";
    };
  };

  services.prometheus.exporters.node = {
    enable = true;
    enabledCollectors = [ "textfile" ];
    extraFlags = [ "--collector.textfile.directory=/var/lib/alloy" ];
  };
}
