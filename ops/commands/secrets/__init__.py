"""`tallystick secrets`: the secrets of a deployment and their rotations. No value that is set is told."""
