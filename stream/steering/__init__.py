"""The policy that recommends where to measure, and how plans and people reach it."""
