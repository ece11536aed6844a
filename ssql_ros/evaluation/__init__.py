"""What a policy or a shield is worth: rollouts, intervals, calibration, certificates, off-policy evaluation."""
