"""The parts of `BackendConformance`, one subject a file; their fixtures are defined in `hefw.testing.backend`."""
