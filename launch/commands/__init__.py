"""One module for each word that a user types after `ptychostream`."""
