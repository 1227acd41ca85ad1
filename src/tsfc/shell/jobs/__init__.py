"""The jobs, one module each: functions of a host.

A job imports only what it needs, because it starts many times a minute.
"""
