"""The stage that refines the object while it grows with the scan."""
