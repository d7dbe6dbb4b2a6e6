"""areaDetector over PV Access: its arrays, its series, and a detector that sends them."""
