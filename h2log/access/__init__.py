"""What a line of the access log is: the exchange it tells of, its formats, and parsing it back."""
