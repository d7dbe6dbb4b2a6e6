"""What a finished scan leaves: CXI, picture, report, entry in the store."""
