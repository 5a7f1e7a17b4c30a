"""What the command line is made of: arguments, options, jobs, explanations, and the one table of a sweep."""
