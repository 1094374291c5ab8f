"""Torch operators on a fixed mesh. Public tensors are (B, V, C); geometry is held in non-persistent
buffers.

Letters in addition to those of the package: n_in and n_out are the numbers of vertices of two
levels, C_in and C_out the channels of a layer, P the points of a cloud of which S are sampled, T
tokens of width D.

Chebyshev convolutions, spiral convolutions and sparse maps come in two forms. `plain_...` is the
definition, the formula in basic operations; the fast form has the same result and a backward pass
of its own. The plain form is used if a custom backward pass cannot run: inside `torch.export`,
`torch.jit.trace` and `torch.func`, with forward-mode gradients, and for an empty batch.
"""
