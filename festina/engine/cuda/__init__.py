"""A Llama-class decoder on a GPU: PyTorch for model mathematics, our kernels for paged attention.

Everything but lanes and graphs is plain tensor code that runs on any device of PyTorch's, which is
how it is tested where there is no GPU. PyTorch is the optional extra `festina[gpu]`: import modules
of this package after `extras.require_torch()`.
"""
