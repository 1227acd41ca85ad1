"""One module per job: gather, decide, persist, act, report. Each imports only what its job needs, for it starts many times a minute."""
