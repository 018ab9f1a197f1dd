"""A thousand agents at one scheduler: real sockets and messages, no GPUs."""
