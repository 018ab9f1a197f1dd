"""The processes: thin shells around the sans-I/O protocol logic. Receive, decide, act, settle."""
