"""`python -P -m d7agent.helper`: one job on stdin, one reply on stdout."""

from d7agent.helper.prctl import close_to_others

if __name__ == "__main__":
    close_to_others()  # before all else is imported, which takes longer than Python's own start
    from d7agent.helper.door import main

    main()
