"""Rules, alerts, runbooks and the dashboard of `tsfc mixin`."""
