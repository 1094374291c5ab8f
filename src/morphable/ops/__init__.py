"""Torch operators on a fixed mesh. Public tensors are (B, V, C); geometry enters as non-persistent
buffers.

Letters beyond those of the package: n_in and n_out are the vertices of two levels, C_in and C_out
the channels of a layer, P the points of a cloud of which S are sampled, T tokens of width D.

Chebyshev convolutions, spiral convolutions and sparse maps have a definition, `plain_...`, the
formula in basic operations, and a fast form that equals it, with a backward pass of its own. The
plain form runs where a custom backward cannot: inside `torch.export`, and for an empty batch.
"""
