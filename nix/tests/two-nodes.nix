# Two nodes with the default jobs, and headscale with its DERP and STUN servers.
{ pkgs, ... }:

let
  # Valid for ten years, because a Nix store may keep it that long.
  certificate = pkgs.runCommand "headscale-certificate" { nativeBuildInputs = [ pkgs.openssl ]; } ''
    mkdir $out
    openssl req -x509 -nodes -days 3650 \
      -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 \
      -subj /CN=headscale -addext subjectAltName=DNS:headscale \
      -keyout $out/key.pem -out $out/cert.pem
  '';

  # DERP uses TCP, so without UDP only the relay works.
  no-udp = pkgs.writeText "no-udp.nft" ''
    table inet no-udp {
      chain input {
        type filter hook input priority -300;
        iifname eth1 meta l4proto udp drop
      }
      chain output {
        type filter hook output priority -300;
        oifname eth1 meta l4proto udp drop
      }
    }
  '';

  node = {
    imports = [ ../module.nix ];

    security.pki.certificateFiles = [ "${certificate}/cert.pem" ];

    services.tailscale = {
      enable = true;
      openFirewall = true;
    };

    services.prometheus.exporters.node = {
      enable = true;
      extraFlags = [ "--collector.textfile.directory=/var/lib/alloy" ];
    };

    atro.tailscale = {
      exporter = {
        enable = true;
        interval = "5s";
      };
      keepalive = {
        enable = true;
        metricsPath = "/var/lib/alloy/tailscale-keepalive.prom";
      };
      native-metrics.enable = true;
      watchdog = {
        enable = true;
        interval = "5s";
        # Longer than two new nodes need to connect.
        maxRelaySeconds = 30;
      };
    };
  };
in
{
  name = "tsfc-two-nodes";

  nodes = {
    headscale = {
      networking.firewall = {
        allowedTCPPorts = [
          80
          443
        ];
        allowedUDPPorts = [ 3478 ];
      };

      services.headscale = {
        enable = true;
        settings = {
          server_url = "https://headscale";
          derp = {
            urls = [ ];
            auto_update_enabled = false;
            server = {
              enabled = true;
              region_id = 999;
              region_code = "test";
              region_name = "Test";
              stun_listen_addr = "0.0.0.0:3478";
            };
          };
          dns = {
            base_domain = "tailnet";
            override_local_dns = false;
          };
        };
      };

      # tailscaled requires TLS for DERP.
      services.nginx = {
        enable = true;
        virtualHosts.headscale = {
          addSSL = true;
          sslCertificate = "${certificate}/cert.pem";
          sslCertificateKey = "${certificate}/key.pem";
          locations."/" = {
            proxyPass = "http://127.0.0.1:8080";
            proxyWebsockets = true;
          };
        };
      };
    };

    one = node;

    two = {
      imports = [ node ];

      environment.systemPackages = [ pkgs.nftables ];
      # Both nodes see each other on relay; this one must not restart tailscaled.
      atro.tailscale.watchdog.excludePeers = [ "one" ];
    };
  };

  testScript = ''
    FILES = ["peers", "native", "keepalive", "watchdog"]


    def scraped(sample):
        return f"curl -sSf http://localhost:9100/metrics | grep -xF '{sample}'"


    def said(line):
        return f"journalctl -t tailscale-watchdog -o cat --since @{blocked} | grep '^{line}'"


    def invocation(node):
        return node.succeed("systemctl show --property InvocationID --value tailscaled.service")


    start_all()
    headscale.wait_for_open_port(443)
    headscale.wait_until_succeeds("headscale users list")
    headscale.succeed("headscale users create dev")
    key = headscale.succeed("headscale preauthkeys create --user 1 --reusable").strip()
    for node in [one, two]:
        node.wait_for_unit("tailscaled.service")
        node.succeed(f"tailscale up --login-server https://headscale --auth-key {key}")
        node.wait_for_unit("prometheus-node-exporter.service")
        node.wait_for_open_port(9100)

    with subtest("each job writes its file, and node_exporter reads it"):
        for node in [one, two]:
            for file in FILES:
                path = f"/var/lib/alloy/tailscale-{file}.prom"
                # The timer has started the job, and the job may write there.
                node.wait_for_file(path)
                # With any umask of the unit, because node_exporter runs as another user.
                assert node.succeed(f"stat -c %a {path}") == "644\n"
            # The exporter and native-metrics may use tailscaled's socket.
            node.wait_until_succeeds(scraped("tailscale_up 1"))
            node.wait_until_succeeds(scraped("tailscale_native_metrics_up 1"))
            # node_exporter accepted all files.
            node.succeed(scraped("node_textfile_scrape_error 0"))

    with subtest("keepalive makes and keeps the path direct"):
        # Only keepalive sends packets over this tailnet.
        one.wait_until_succeeds(scraped('tailscale_keepalive_peers{result="direct"} 1'))
        one.wait_until_succeeds(scraped('tailscale_peer_path{path="direct",peer="two"} 1'))
        # The watchdog has seen the direct peer and has not restarted tailscaled.
        for node, peer in [(one, "two"), (two, "one")]:
            node.wait_until_succeeds(scraped(f'tailscale_watchdog_peer_state{{peer="{peer}"}} 0'))
            node.succeed(scraped("tailscale_watchdog_restarts_total 0"))

    first = {node.name: invocation(node) for node in [one, two]}
    blocked = one.succeed("date +%s").strip()
    two.succeed("nft -f ${no-udp}")

    with subtest("a peer that is stuck on relay has tailscaled restarted"):
        # The watchdog detects the relay, waits, and restarts tailscaled.
        one.wait_until_succeeds(said("DETECTED: two transitioned to relay$"))
        one.wait_until_succeeds(said("WAITING: two on relay for [0-9]*s (threshold: 30s)$"))
        one.wait_until_succeeds(said("RESTART: two on relay for [0-9]*s, restarting tailscaled$"))
        # The watchdog counts a restart after it succeeded.
        one.wait_until_succeeds(scraped("tailscale_watchdog_restarts_total 1"))
        # tailscaled.service was restarted.
        second = invocation(one)
        assert second != first["one"]

    with subtest("the cooldown allows no second restart"):
        # The peer stays on relay, and the watchdog keeps running.
        one.wait_until_succeeds(f"test $({said('COOLDOWN: two exceeded threshold but in cooldown')} -c) -ge 4")
        # There is only one restart, and tailscaled has not started again.
        assert one.succeed(said("RESTART:") + " -c") == "1\n"
        one.succeed(scraped("tailscale_watchdog_restarts_total 1"))
        one.succeed(scraped("tailscale_watchdog_restart_failures_total 0"))
        assert invocation(one) == second

    with subtest("an excluded peer is watched and never the cause of a restart"):
        two.wait_until_succeeds(said("EXCLUDED: one on relay for [0-9]*s, excluded from restarts$"))
        two.fail(said("RESTART:"))
        assert invocation(two) == first["two"]

    with subtest("the path heals"):
        two.succeed("nft delete table inet no-udp")
        # The state survived the restart: the peer is still known to be on relay.
        one.wait_until_succeeds(said("RECOVERED: two back to direct$"))
        one.wait_until_succeeds(scraped('tailscale_peer_path{path="direct",peer="two"} 1'))
        # There was no other restart.
        assert invocation(one) == second
  '';
}
