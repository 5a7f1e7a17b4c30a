"""The scripts beside this are run by `test_cases.py`, each in a process of its own, and never imported."""

collect_ignore_glob = ["*/*", "common.py"]
