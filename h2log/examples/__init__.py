"""Programs that show the server at work: `h2log run h2log.examples.NAME:app`.

`articles` is a folder of pages, `users` a table behind a REST interface, `login` how to sign in.
"""
