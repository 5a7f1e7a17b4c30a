"""The commands, one file each, imported when it is the one; around them what is typed, shown and kept of a sweep."""

COMMANDS = ("evaluate", "train", "score", "compare", "report", "explain", "check")  # the first is meant by `wsol` alone
