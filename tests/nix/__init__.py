"""Tests of what is written in Nix, evaluated by Nix itself, with a stand-in for nixpkgs."""
