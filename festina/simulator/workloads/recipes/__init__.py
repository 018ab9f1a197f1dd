"""The six evaluation workloads, one file each."""
