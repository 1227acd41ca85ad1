"""The packages: the wheel, the Debian package and the zipapp."""
