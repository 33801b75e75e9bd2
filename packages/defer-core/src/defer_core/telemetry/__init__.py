"""Spans and metrics by OpenTelemetry, in a process that has loaded it; docs/monitoring.md lists them."""
