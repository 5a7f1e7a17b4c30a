"""The hot loops of the sweep: components joined from the brightest pixel down, and which is the largest."""
