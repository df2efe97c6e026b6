"""What puts files into bronze, and what prepares the buckets."""
