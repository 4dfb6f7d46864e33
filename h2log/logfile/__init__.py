"""Where lines go: a bounded buffer and one asynchronous writer."""
