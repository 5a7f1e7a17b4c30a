"""What a run shows, and what sets runs apart: pages, figures, intervals, LaTeX."""
