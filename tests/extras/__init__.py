"""What the optional extras do: `tsfc[report]`, `tsfc[fleet]`."""
