"""A cluster in virtual time: workloads, policies, the analytic GPU, and what it all costs."""
