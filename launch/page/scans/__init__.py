"""The scans of a save folder, as the page reads and shows them."""
