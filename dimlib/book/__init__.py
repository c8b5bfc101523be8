"""What the notebooks share: records of runs, and figures."""
