"""The live web page."""

BROWSERS = "browsers"  # among the counts of the page's progress: how many show it
