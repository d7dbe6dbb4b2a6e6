"""How far a reconstruction is from truth or from another one."""
