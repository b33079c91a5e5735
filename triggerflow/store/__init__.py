"""Where activities, triggers, instances and logs are kept: the contract and two backends."""
