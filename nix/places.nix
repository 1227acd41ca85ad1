# Directories that the sandbox of the units must not show to the jobs.
# src/tsfc/units/places.py has the same rules, and the reasons.
{ lib }:
let
  hiddenDirectories = [
    "/dev"
    "/home"
    "/proc"
    "/root"
    "/run/user"
    "/sys"
    "/tmp"
    "/var/tmp"
  ];

  systemTrees = [
    "/bin"
    "/boot"
    "/efi"
    "/etc"
    "/lib"
    "/lib32"
    "/lib64"
    "/libx32"
    "/nix"
    "/run/credentials"
    "/run/dbus"
    "/run/lock"
    "/run/log"
    "/run/systemd"
    "/run/udev"
    "/sbin"
    "/usr"
    "/var/lib/dbus"
    "/var/lib/systemd"
    "/var/lib/tailscale"
    "/var/lib/tailscale-watchdog"
    "/var/lock"
    "/var/log/journal"
    "/var/spool/cron"
  ];

  sharedDirectories = [
    "/media"
    "/mnt"
    "/opt"
    "/run"
    "/run/private"
    "/srv"
    "/var"
    "/var/backups"
    "/var/cache"
    "/var/cache/private"
    "/var/crash"
    "/var/db"
    "/var/empty"
    "/var/games"
    "/var/lib"
    "/var/lib/private"
    "/var/local"
    "/var/log"
    "/var/log/private"
    "/var/mail"
    "/var/opt"
    "/var/spool"
  ];

  # The path without the link that /var/run is.
  withoutLink =
    path: if lib.hasPrefix "/var/run/" path then lib.removePrefix "/var" path else path;

  # The directories that contain a path.
  ancestors = path: builtins.filter (directory: lib.hasPrefix "${directory}/" path);

  # The runtime directory of the tailscaled that a path is in, in a list; null if there is none.
  tailscaled = builtins.match "(/run/tailscale[^/]*)/.+";

  hidden =
    path:
    let
      directories = ancestors path hiddenDirectories;
    in
    if directories == [ ] then
      null
    else
      "in ${builtins.head directories}, which the sandbox of the units hides; choose another directory";
in
{
  # Why a job must not write the file `path`, as a phrase that completes "PATH is …"; null if it
  # may. `example` is a suitable directory.
  outputProblem =
    path: example:
    let
      own = "choose a directory of its own, such as ${example}";
      target = withoutLink path;
      directory = builtins.dirOf target;
      trees = ancestors target systemTrees;
      runtime = tailscaled target;
    in
    if hidden target != null then
      hidden target
    else if builtins.elem directory sharedDirectories then
      "directly in ${directory}, all of which the job could then change; ${own}"
    else if trees != [ ] then
      "in ${builtins.head trees}, which belongs to the system; ${own}"
    else if runtime != null then
      "in ${builtins.head runtime}, which belongs to tailscaled; ${own}"
    else
      null;

  # The same for the socket of tailscaled.
  socketProblem =
    path:
    let
      target = withoutLink path;
      isHelper = builtins.match "/run/tailscale-watchdog(-[^/]*)?/.+" target != null;
    in
    if hidden target != null then
      hidden target
    else if tailscaled target != null && !isHelper then
      null
    else
      "not in /run/tailscale or /run/tailscale-NAME, and the jobs could then use everything in its directory; start tailscaled with \"--socket=/run/tailscale/tailscaled.sock\" and RuntimeDirectory=tailscale";
}
