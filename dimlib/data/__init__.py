"""Data whose dimension is known, and their exact denoisers."""
