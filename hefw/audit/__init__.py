"""What an honest-but-curious server makes of what a strategy leaves in plaintext."""
