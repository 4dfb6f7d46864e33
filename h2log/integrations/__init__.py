"""What connects h2log with others: each module needs a package of its own, and is imported by whom
it serves."""
