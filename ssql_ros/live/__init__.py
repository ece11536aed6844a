"""The learner beside a robot: its buffer, its worker, and the gates before anything is offered."""
