"""Tests of the Nix code, evaluated by Nix with a stub of nixpkgs."""
