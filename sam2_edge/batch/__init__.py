"""Many videos: tasks, the workers that track them, and the engines that run workers."""
