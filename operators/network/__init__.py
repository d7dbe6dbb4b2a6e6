"""Networks that turn one pattern into one patch of the object, with its uncertainty."""
