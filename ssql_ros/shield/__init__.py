"""The safety shield: which action goes to the robot, when, and why."""
