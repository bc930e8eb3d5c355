"""How good the routing is: metrics, yardsticks, zoos, baselines."""
