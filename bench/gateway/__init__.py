"""What HTTP costs: added time to the first token, and streamed tokens a second of one core."""
