"""What makes the documentation: pages made from the code, the tutorial's notebook, and the site."""
