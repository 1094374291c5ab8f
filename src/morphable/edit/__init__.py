"""Editing: arithmetic on codes with named parts, the same for every family, and the transport of a
deformation from one shape to another, without a model.
"""

from morphable.mesh.transport import Transport as Transport
from morphable.mesh.transport import transport as transport
