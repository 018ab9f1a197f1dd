"""HTTP in OpenAI's dialect, on top of festina's own client; and metrics for Prometheus."""
