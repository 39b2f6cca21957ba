"""Policy as code: the federation's Cedar rules, narrowed by the center's own, and what they decide."""
