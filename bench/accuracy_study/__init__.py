"""The study: what max pooling does to accuracy, in many trainings that survive interruptions, on one machine or on a cluster."""
