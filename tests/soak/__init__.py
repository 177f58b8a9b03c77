"""What runs long: kills, fuzzing, hostile peers, secrets, a week on a fake clock. scripts/soak runs all of each."""
