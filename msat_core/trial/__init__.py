"""The trial: own candidates and own questions in; a zoo, a policy, a guarantee and a report out."""
