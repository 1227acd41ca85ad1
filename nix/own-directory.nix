# Directory and group in which jobs write metrics without a capability.
{
  directory = "/var/lib/tsfc";
  group = "tsfc";
}
