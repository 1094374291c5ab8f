"""Drawing: pictures of meshes and charts, without a screen and without a GPU."""
