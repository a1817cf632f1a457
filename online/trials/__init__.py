"""What two versions of the weights do on windows of the past, and on the days that followed."""
