"""An engine in a child process of the agent: device context, weights and KV pools can be given up.

The agent keeps sockets, requests and tokenizers; the child computes. It can be ended to park the
device, and may die or hang: the agent's logic gets `EngineLostError` and starts another one. Frames
go over a socket pair (`frames`, `channel`), bulk data through shared memory (`bulk`), weights are
mapped from their file, or from memory that the agent keeps them in (`images`).
"""
