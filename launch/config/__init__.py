"""The configuration of a run and the YAML that it is read from."""
