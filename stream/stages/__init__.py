"""The stages of a run and the loop that drives one."""
