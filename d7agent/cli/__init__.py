"""For people: the command line. `app` is the door; a module a group of commands, imported only when it is used."""
