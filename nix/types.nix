# Types of options. src/tsfc/units/values.py accepts the same values, but for the directories that
# places.nix refuses.
{ lib }:
let
  matching = description: pattern: lib.types.strMatching pattern // { inherit description; };

  clockUnits = "msec|ms|seconds|second|sec|s|minutes|minute|min|m|hours|hour|hr|h";
  number = "[0-9]{1,6}";
  fraction = "${number}([.][0-9]{1,3})?";
  term = "(${number} *(usec|us)|${fraction} *(${clockUnits}|days|day|d|weeks|week|w))";
  span = "(${term} *){0,8}([0-9]{1,9}([.][0-9]{1,6})?)?";

  # One component of a path, with the slash before it; "." and ".." are none.
  component = "/[.]?[A-Za-z0-9_@+=,~-][A-Za-z0-9_.@+=,~-]*";

  path =
    {
      description,
      example,
      pattern,
    }:
    matching ''${description}, without spaces, "%" or "..", such as "${example}"'' pattern;
in
{
  timeSpan =
    let
      description = ''a time span longer than 0, such as 30s, 5min, "1h 30min", 2d, or 90 (seconds)'';
      isPositive = text: builtins.match ".*[1-9].*" text != null;
    in
    lib.types.addCheck (matching description span) isPositive // { inherit description; };

  absolutePath = path {
    description = "an absolute path";
    example = "/opt/tsfc";
    pattern = "(${component})+";
  };

  metricsPath = path {
    description = ''an absolute path of a ".prom" file in a directory'';
    example = "/var/lib/alloy/tailscale.prom";
    pattern = "(${component})+${component}[.]prom";
  };

  capturePath = path {
    description = ''an absolute path of a ".ndjson", ".ndjson.gz" or ".ndjson.zst" file in a directory'';
    example = "/srv/captures/status.ndjson.zst";
    pattern = "(${component})+${component}[.]ndjson([.](gz|zst))?";
  };

  socketPath = path {
    description = "an absolute path of a socket in a directory";
    example = "/run/tailscale/tailscaled.sock";
    pattern = "(${component}){2,}";
  };

  listenAddress =
    let
      octet = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";
      port = "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])";
      group = "[0-9a-f]{1,4}";
      groups = "${group}(:${group}){0,6}";
      v6 = text: builtins.match "\\[([0-9a-f:]+)]:${port}" text;
      countGroups =
        text: builtins.length (builtins.filter (part: builtins.isString part && part != "") (builtins.split ":" text));
      isV6 =
        ip:
        builtins.match "(${group}:){7}${group}" ip != null
        || (builtins.match "(${groups})?::(${groups})?" ip != null && countGroups ip <= 7);
      isAddress =
        text:
        builtins.match "(${octet}[.]){3}${octet}:${port}" text != null
        || (v6 text != null && isV6 (builtins.head (v6 text)))
        || builtins.match "/run/tsfc(-[A-Za-z0-9_-]{1,32})?/[A-Za-z0-9_-]{1,32}[.]sock" text != null;
    in
    lib.types.addCheck lib.types.str isAddress
    // {
      description = ''IP:PORT, such as "127.0.0.1:9199" or "[::1]:9199", or the path of a socket in /run/tsfc or /run/tsfc-NAME'';
    };

  serviceName =
    matching ''a service name that ends in ".service", such as "tailscaled.service"''
      "[A-Za-z0-9_][A-Za-z0-9:_.@-]*[.]service";

  labels =
    let
      isName = name: builtins.match "[a-zA-Z_][a-zA-Z0-9_]*" name != null && !lib.hasPrefix "__" name;
      hasNames = labels: builtins.all isName (builtins.attrNames labels);
    in
    lib.types.addCheck (lib.types.attrsOf lib.types.str) hasNames
    // {
      description = "attribute set of string, with names of labels";
    };

  remedies =
    let
      isValid =
        names:
        builtins.elem names [
          [ "restart" ]
          [ "other-port" ]
          [
            "restart"
            "other-port"
          ]
          [
            "other-port"
            "restart"
          ]
        ];
    in
    lib.types.addCheck (lib.types.listOf lib.types.str) isValid
    // {
      description = "list of \"restart\", \"other-port\" or both";
    };

  seconds = lib.types.ints.between 0 999999999;
}
