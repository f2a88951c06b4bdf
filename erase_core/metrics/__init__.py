"""What was forgotten and what was kept: rates, intervals, one number."""
