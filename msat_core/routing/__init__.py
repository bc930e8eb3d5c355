"""From scores to a choice: policy, router, and what the adapters share."""
