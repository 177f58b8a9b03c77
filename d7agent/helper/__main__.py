"""`python -P -m d7agent.helper`: one job on stdin, one reply on stdout."""

from d7agent.helper.door import main

if __name__ == "__main__":
    main()
