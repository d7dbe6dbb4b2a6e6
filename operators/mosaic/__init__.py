"""From patches to an image: stitching, matching of phases, error bars."""
