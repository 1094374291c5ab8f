"""Sources: where registered meshes come from, made or imported. Each gives a `MeshSource`."""
