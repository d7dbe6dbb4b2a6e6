"""Every recorded run found again by its uid, through databroker, in one folder without a server."""
