"""What a driver owes a contract: a check of what one publishes, and a scripted one that stands in for a robot."""
