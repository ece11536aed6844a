"""The Minitaur: a quadruped of eight motors (TASKS: walk without falling)."""
