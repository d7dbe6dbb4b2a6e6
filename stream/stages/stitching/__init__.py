"""The stage that assembles the image and publishes it while the scan goes on."""
