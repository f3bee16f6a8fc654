"""Engines: how a weight on log pi(choice) moves a policy, one file each; `bandit_sim.engines.registry` lists them."""
