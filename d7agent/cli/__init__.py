"""For people: the command line. `app` is the door, one module a group of commands, each imported only when it is used."""
