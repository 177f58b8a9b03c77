"""`d7agent doctor`: a module for each kind of finding. Nothing in here changes anything."""
